//! `pullpath doctor`: checks an installation where it runs, part by part, and prints what is missing with its fix.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use futures_util::future::join_all;
use jiff::Timestamp;
use kube::Client;

use super::access::ClusterArgs;
use super::args::duration;
use super::error::Error;
use super::network_args::{ConfigOrigin, read_config};
use super::node_check::{local_address, request};
use super::output::{FAILURE, Printing, SUCCESS, UNKNOWN};
use super::probe_context::runtime;
use crate::config::{Config, ListenAddress};
use crate::containerd::Settings;
use crate::daemon::http::status::Status;
use crate::doctor::files::{NamedFile, Unread};
use crate::doctor::network::{self, NameResult, ServerAnswer};
use crate::doctor::rights::{self, Need};
use crate::doctor::{Check, Part, Role, State, files as of_files};
use crate::files::{self, Kind};
use crate::kubernetes::access;
use crate::kubernetes::client::connect;
use crate::kubernetes::request::server_info;
use crate::model::endpoint::Host;
use crate::model::settings_source::SettingsSource;
use crate::model::step::Step;
use crate::model::text::printable;
use crate::model::units::HumanDuration;
use crate::model::vantage::NetworkView;
use crate::net::resolv::ResolverConfig;
use crate::net::{dns, host_root, local};
use crate::report::doctor::{DoctorDocument, render};
use crate::vantage::ClusterInput;
use crate::vantage::node_settings::{NodeSettings, containerd_files};

/// Where the image's manifests mount the configuration.
const USUAL: &str = "/etc/pullpath/pullpath.yaml";

/// A name that no name server has (RFC 6761): any answer shows that the server answers.
const NO_NAME: &str = "pullpath.invalid";

/// Names of the configuration that are resolved.
const MAX_NAMES: usize = 3;

/// Reviews of rights at the same time.
const AT_ONCE: usize = 8;

/// Upper bound of a file that is read to see whether it can be.
const MAX_FILE: u64 = 16 << 20;

#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 nothing is missing, 1 something that the configuration needs is missing, 2 unknown.\n\
                  In a cluster: kubectl exec -n pullpath daemonset/pullpath-node -- /usr/bin/pullpath doctor"
)]
pub(super) struct DoctorArgs {
    /// The configuration of `run` or `cluster` [default: /etc/pullpath/pullpath.yaml, if it exists]
    #[arg(short, long, value_name = "FILE", env = "PULLPATH_CONFIG")]
    config: Option<PathBuf>,

    /// Check what `pullpath cluster` needs, not `pullpath run`
    #[arg(long)]
    cluster_role: bool,

    /// Timeout for any single answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,

    #[command(flatten)]
    printing: Printing,

    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(args: &DoctorArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let document = runtime()?.block_on(examine(args));
    args.printing.print(&document, render, out)?;
    Ok(match document.state {
        State::Ok | State::Note => SUCCESS,
        State::Problem => FAILURE,
        State::Unknown => UNKNOWN,
    })
}

async fn examine(args: &DoctorArgs) -> DoctorDocument {
    let environment = |name: &str| std::env::var(name).ok();
    let view = NetworkView::of(environment);
    let (read, mut checks) = configuration(args);
    let Some(config) = read else {
        return DoctorDocument::new(Timestamp::now(), view, checks);
    };
    let role = if args.cluster_role {
        Role::Cluster
    } else {
        Role::Node
    };
    let (api, (mut of_node, others), daemon) = tokio::join!(
        api_server(args, &config, role),
        node(args, &config, role, view),
        daemon(args, &config, role, view),
    );
    let (mut of_server, ahead) = api;
    checks.append(&mut of_server);
    checks.append(&mut of_node);
    checks.extend(others.resolver);
    checks.push(network::clock(ahead));
    checks.extend(others.egress);
    checks.push(daemon);
    DoctorDocument::new(Timestamp::now(), view, checks)
}

// ---- the configuration --------------------------------------------------------------------------

fn configuration(args: &DoctorArgs) -> (Option<Config>, Vec<Check>) {
    let usual = Path::new(USUAL);
    let path = args.config.as_deref();
    let Some(path) = path.or_else(|| files::exists(usual).then_some(usual)) else {
        let text = format!("no file is given and {USUAL} does not exist: the defaults are checked");
        let check = Check::new(Part::Configuration, State::Note, text);
        let check = check.fixed_by("pullpath doctor --config FILE");
        return (Some(Config::default()), vec![check]);
    };
    match read_config(path, ConfigOrigin::Argument) {
        Ok(config) => {
            let targets = match config.targets.iter().count() {
                1 => "1 target".to_owned(),
                all => format!("{all} targets"),
            };
            let text = format!("{}: valid, {targets}", printable(&path.to_string_lossy()));
            let check = Check::new(Part::Configuration, State::Ok, text);
            (Some(config), vec![check])
        }
        Err(error) => {
            let fix =
                "correct it; pullpath config example prints all keys. Nothing else was checked";
            let check = Check::problem(Part::Configuration, error.to_string(), fix);
            (None, vec![check])
        }
    }
}

// ---- the API server -----------------------------------------------------------------------------

/// Lines, and the seconds that this machine's clock is ahead of the API server's.
async fn api_server(args: &DoctorArgs, config: &Config, role: Role) -> (Vec<Check>, Option<f64>) {
    let own = std::env::var("POD_NAMESPACE")
        .ok()
        .filter(|name| !name.is_empty());
    let is_needed = !rights::needs(config, role, "").is_empty();
    if !is_needed {
        let text = "not used: no key of the configuration needs it";
        return (vec![Check::new(Part::ApiServer, State::Note, text)], None);
    }
    let connected = if args.cluster.is_given() {
        let connected = args.cluster.connect().await;
        connected.map_err(|error| error.to_string())
    } else {
        let connected = connect(config.kubernetes.kubeconfig.as_deref(), None).await;
        connected.map_err(|error| error.to_string())
    };
    let client = match connected {
        Ok(client) => client,
        Err(reason) => {
            let fix = "in a pod: automountServiceAccountToken: true and a serviceAccountName; on a machine: --kubeconfig FILE";
            return (vec![Check::problem(Part::ApiServer, reason, fix)], None);
        }
    };
    let begun = SystemTime::now();
    let info = match server_info(&client, args.timeout).await {
        Ok(info) => info,
        Err(error) => {
            let fix = "let this network reach the API server (NetworkPolicy, firewall), or correct the kubeconfig";
            return (
                vec![Check::problem(Part::ApiServer, error.to_string(), fix)],
                None,
            );
        }
    };
    let took = begun.elapsed().unwrap_or_default();
    let ahead = info.date.map(|date| seconds_ahead(begun, took, date));
    let version = info
        .version
        .map_or_else(String::new, |version| format!(" ({version})"));
    let text = format!("answers in {}{version}", HumanDuration(took));
    let mut checks = vec![Check::new(Part::ApiServer, State::Ok, text)];
    let namespace = match (role, &config.cluster.namespace) {
        (Role::Cluster, Some(named)) => own.unwrap_or_else(|| named.clone()),
        _ => own.unwrap_or_else(|| client.default_namespace().to_owned()),
    };
    let needs = rights::needs(config, role, &namespace);
    let answers = reviews(&client, &needs).await;
    checks.extend(rights::judge(&needs, &answers));
    (checks, ahead)
}

/// The API server's answer for each right of each need.
async fn reviews(client: &Client, needs: &[Need]) -> Vec<Vec<Result<bool, String>>> {
    let mut all = Vec::new();
    for need in needs {
        let mut answers = Vec::new();
        for some in need.rights.chunks(AT_ONCE) {
            let answered = join_all(some.iter().map(|right| access::has(client, right))).await;
            let answered = answered.into_iter();
            answers.extend(answered.map(|answer| answer.map_err(|error| error.to_string())));
        }
        all.push(answers);
    }
    all
}

/// How far this clock is ahead at least: the server wrote `date`, cut to a whole second, at some time of the exchange.
fn seconds_ahead(begun: SystemTime, took: Duration, date: SystemTime) -> f64 {
    let date = date + Duration::from_millis(500);
    let middle = begun + took / 2;
    let (sign, apart) = match middle.duration_since(date) {
        Ok(ahead) => (1.0, ahead),
        Err(behind) => (-1.0, behind.duration()),
    };
    sign * apart.saturating_sub(took / 2).as_secs_f64()
}

// ---- the node -----------------------------------------------------------------------------------

#[derive(Default)]
struct OfNetwork {
    resolver: Vec<Check>,
    egress: Vec<Check>,
}

async fn node(
    args: &DoctorArgs,
    config: &Config,
    role: Role,
    view: NetworkView,
) -> (Vec<Check>, OfNetwork) {
    let files = of_files::named(config).into_iter();
    let root = config.network.host_root.clone();
    let read = tokio::task::spawn_blocking(move || {
        files
            .map(|file| {
                let result = readable(root.as_deref(), &file);
                (file, result)
            })
            .collect::<Vec<_>>()
    });
    let mut checks = match read.await {
        Ok(read) => of_files::judge(&read, view),
        Err(_) => vec![Check::new(
            Part::Files,
            State::Unknown,
            "the files could not be read",
        )],
    };
    if role == Role::Cluster {
        // It makes no check of a registry.
        return (checks, OfNetwork::default());
    }
    let loaded = load(config, args.timeout);
    let (settings, node) = match loaded {
        Ok(loaded) => loaded,
        Err(reason) => {
            if checks.iter().all(|check| check.state != State::Problem) {
                let fix = "correct it; the daemon does not start with it";
                checks.push(Check::problem(Part::Files, reason, fix));
            }
            let skipped = |part| {
                vec![Check::new(
                    part,
                    State::Unknown,
                    "not checked: a file has to be corrected first",
                )]
            };
            let others = OfNetwork {
                resolver: skipped(Part::Resolver),
                egress: skipped(Part::Egress),
            };
            return (checks, others);
        }
    };
    let base = node
        .vantage(&settings)
        .with_settings(SettingsSource::Configuration);
    checks.extend(of_files::not_observed(&base));
    let source = base.resolver_source.clone();
    let netlink = NodeSettings::netlink().await;
    let (vantage, servers, names) = tokio::join!(
        node.look(base, &config.network, &ClusterInput::NOT_ASKED, netlink),
        servers(&node.means.resolver, args.timeout),
        names(config, &node),
    );
    let others = OfNetwork {
        resolver: network::resolver(&servers, &names, &source),
        egress: network::egress(&vantage),
    };
    (checks, others)
}

fn load(config: &Config, wait: Duration) -> Result<(Settings, NodeSettings), String> {
    let environment = |name: &str| std::env::var(name).ok();
    let settings = Settings::load(&containerd_files(&config.network), environment);
    let settings = settings.map_err(|error| error.to_string())?;
    let node = NodeSettings::load(&config.network, wait, &settings);
    Ok((settings, node.map_err(|error| error.to_string())?))
}

fn readable(root: Option<&Path>, file: &NamedFile) -> Result<(), Unread> {
    let reason = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Unread::Absent,
        ErrorKind::PermissionDenied => Unread::Denied,
        _ => Unread::Other(files::reason(&error)),
    };
    // A link that leads nowhere below the node's root is reported by the read.
    let path = host_root::resolve(root, &file.path).unwrap_or_else(|_| file.path.clone());
    match files::kind(&path).map_err(reason)? {
        Kind::Folder => files::list(&path).map(drop).map_err(reason),
        Kind::File | Kind::Other => files::read(&path, MAX_FILE).map(drop).map_err(reason),
    }
}

/// Each name server, queried alone.
async fn servers(resolver: &ResolverConfig, wait: Duration) -> Vec<ServerAnswer> {
    let name = Host::new(NO_NAME);
    let servers = resolver.settings.nameservers.iter();
    let queried = servers.map(|server| {
        let alone = resolver.clone().with_nameservers(vec![*server]);
        let name = name.clone();
        async move {
            let resolve = dns::resolve(&name, &alone, &[], dns::Families::V4Only, wait).await;
            let answered = resolve.queries.iter().find(|query| query.is_answered());
            let answer = match (answered, &resolve.outcome) {
                (Some(query), _) => Ok(query.outcome.took().unwrap_or_default()),
                (None, Step::Failed { fault, .. }) => Err(fault.to_string()),
                (None, Step::Done { .. } | Step::Skipped { .. }) => Err("no answer".to_owned()),
            };
            (*server, answer)
        }
    });
    join_all(queried).await
}

/// The registries of the configured targets.
async fn names(config: &Config, node: &NodeSettings) -> Vec<NameResult> {
    let mut hosts: Vec<Host> = Vec::new();
    for target in config.targets.iter() {
        let (host, _) = target.image.0.host();
        if matches!(host, Host::Name(_)) && !hosts.contains(&host) && hosts.len() < MAX_NAMES {
            hosts.push(host);
        }
    }
    let resolved = hosts.into_iter().map(|host| async move {
        let found = node.means.resolve(&host).await;
        (host.to_string(), found.map(|addresses| addresses.len()))
    });
    join_all(resolved).await
}

// ---- the program itself -------------------------------------------------------------------------

async fn daemon(args: &DoctorArgs, config: &Config, role: Role, view: NetworkView) -> Check {
    let of_environment = |name: &str| std::env::var(name).ok()?.parse::<ListenAddress>().ok();
    let (at, answer) = match role {
        Role::Node => {
            let admin = of_environment("PULLPATH_ADMIN_LISTEN").or(config.admin_listen);
            let at = local_address(admin.unwrap_or(ListenAddress::ADMIN).0);
            let answer = request(at, args.timeout).await;
            (at, answer.map(|status| (summary(&status), status.notes)))
        }
        Role::Cluster => {
            let public = of_environment("PULLPATH_LISTEN").or(config.listen);
            let at = local_address(public.unwrap_or(ListenAddress::PUBLIC).0);
            let answer = local::get(at, "/readyz", args.timeout).await;
            let lines = answer.map(|answer| {
                let text = printable_lines(&answer.body);
                let mut lines = text.into_iter();
                (lines.next().unwrap_or_default(), lines.collect())
            });
            (at, lines)
        }
    };
    match answer {
        Ok((text, notes)) if notes.is_empty() => Check::new(Part::Daemon, State::Ok, text),
        Ok((text, notes)) => {
            let text = format!("{text}; {}", notes.join("; "));
            Check::problem(
                Part::Daemon,
                text,
                "correct what it names; its log has the details",
            )
        }
        Err(reason) if view == NetworkView::Machine => {
            let text = format!("none answers at {at}: {reason}");
            let check = Check::new(Part::Daemon, State::Note, text);
            check.fixed_by("pullpath run --config FILE")
        }
        Err(reason) => {
            let text = format!("none answers at {at}: {reason}");
            let fix = "kubectl logs of this pod; if admin_listen was changed by a flag, set PULLPATH_ADMIN_LISTEN";
            Check::problem(Part::Daemon, text, fix)
        }
    }
}

fn summary(daemon: &Status) -> String {
    let states = daemon.states.iter();
    let states = states.map(|(state, count)| format!("{count} {}", state.replace('_', " ")));
    let all = match daemon.all() {
        0 => "no image to check yet".to_owned(),
        all => format!("of {all} images {}", states.collect::<Vec<_>>().join(", ")),
    };
    format!("{} on {}: {all}", daemon.version, daemon.node)
}

fn printable_lines(body: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(body)
        .lines()
        .map(printable)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_compared_with_the_middle_of_a_second() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        for (begun, took, ahead) in [
            (100_500, 0, 0.0),
            (160_500, 0, 60.0),
            (40_500, 0, -60.0),
            // A slow answer shows less.
            (90_500, 20, 0.0),
            (150_500, 20, 50.0),
            (30_500, 20, -50.0),
        ] {
            let found = seconds_ahead(at(begun), Duration::from_secs(took), date);
            assert!((found - ahead).abs() < 1e-6, "{begun}: {found}");
        }
    }
}
