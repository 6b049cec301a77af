//! `pullpath vantage`: what this place looks like, and what it does not show.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::args::duration;
use super::error::Error;
use super::output::{Output, SUCCESS, When, use_color};
use super::place::PlaceArgs;
use crate::containerd::Settings;
use crate::report::text::Style;
use crate::report::vantage::{VantageDocument, render};
use crate::vantage::ClusterTold;
use crate::vantage::place::{Place, containerd_files};

#[derive(Args, Debug)]
pub(super) struct VantageArgs {
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// When to colour the text
    #[arg(long, value_enum, default_value_t = When::Auto)]
    color: When,

    /// The longest wait for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn run(args: &VantageArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let (config, wishes) = args.place.load(args.timeout)?;
    let settings = Settings::load(&containerd_files(&config.network), |name| {
        std::env::var(name).ok()
    })?;
    let place = Place::load(&wishes, &settings)?;
    let base = place.vantage(&settings);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let vantage = runtime.block_on(async {
        let netlink = Place::netlink().await;
        place
            .look(base, &config.network, &ClusterTold::NOT_ASKED, netlink)
            .await
    });
    let document = VantageDocument::new(vantage, settings.proxies.settings().clone());
    let text = match args.output {
        Output::Text => render(
            &document,
            Style {
                color: use_color(args.color),
            },
        ),
        Output::Json => {
            let mut text =
                serde_json::to_string_pretty(&document).map_err(|e| Error::Write(e.into()))?;
            text.push('\n');
            text
        }
    };
    out.write_all(text.as_bytes()).map_err(Error::Write)?;
    Ok(SUCCESS)
}
