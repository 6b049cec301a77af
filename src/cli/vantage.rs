//! `pullpath vantage`: prints what can be observed from this vantage point, and what can't.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::args::duration;
use super::error::Error;
use super::network_args::NodeSettingsArgs;
use super::output::{Printing, SUCCESS};
use super::probe_context::{ContainerdArgs, NetworkArgs, ProbeContext, runtime};
use crate::report::vantage::{VantageDocument, render};

#[derive(Args, Debug)]
pub(super) struct VantageArgs {
    #[command(flatten)]
    printing: Printing,

    /// Timeout for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    #[command(flatten)]
    place: NodeSettingsArgs,
}

pub(super) fn run(args: &VantageArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let (containerd, network) = (ContainerdArgs::default(), NetworkArgs::default());
    let (vantage, proxies) = runtime()?.block_on(async {
        let place = &args.place;
        let context =
            ProbeContext::prepare(place, &containerd, &network, args.timeout, false).await?;
        let vantage = context.observe().await.map_err(|_| Error::Panicked)?;
        Ok::<_, Error>((
            vantage,
            context.probe_network.settings.proxies.settings().clone(),
        ))
    })?;
    let document = VantageDocument::new(vantage, proxies);
    args.printing.print(&document, render, out)?;
    Ok(SUCCESS)
}
