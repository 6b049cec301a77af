//! Targets, from the configuration and from pods, ready to be checked.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::config::{self, Config, CredentialFiles, Expect};
use crate::daemon::schedule::account::{Account, Sharers};
use crate::daemon::schedule::clock::hash;
use crate::daemon::schedule::timetable::Rhythm;
use crate::model::platform::Platform;
use crate::model::reference::Reference;
use crate::model::units::Bytes;
use crate::model::workload::{PodUse, SecretLookup, SecretRefs};
use crate::workload::discovery::{Use, Wanted};

/// Maximum of pods of a target that its reports name.
const MAX_PODS: usize = 3;

/// Where a target is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetSource {
    /// Section `targets` of the configuration.
    Configuration,
    /// Pods of this node (`kubernetes.discover`).
    Pods,
}

/// An image that is checked on a schedule.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its unique name in metrics and on the page.
    pub name: Arc<str>,
    /// The image.
    pub reference: Reference,
    /// The registry in metrics: the domain of the image.
    pub registry: Arc<str>,
    /// The platform whose manifest is checked.
    pub platform: Platform,
    /// Whether the registry is reached by plain HTTP.
    pub plain_http: bool,
    /// Files with credentials.
    pub credential: CredentialFiles,
    /// Secrets that pods name, tried before those files; `None`: the pods name none.
    pub secrets: Option<SecretRefs>,
    /// Containers of this node's pods that use the image.
    pub uses: Vec<Use>,
    /// Where the target is from.
    pub sources: Vec<TargetSource>,
    /// The expected path classes, rate and duration.
    pub expect: Expect,
    /// How often each tier is checked.
    pub rhythm: Rhythm,
}

impl Target {
    fn of(target: &config::Target, schedule: &config::Schedule) -> Self {
        let reference = target.image.0.clone();
        let platform = target.platform.as_ref().map(|platform| platform.0.clone());
        Self {
            name: Arc::from(target.name()),
            registry: Arc::from(reference.domain()),
            platform: platform.unwrap_or_else(Platform::local),
            plain_http: target.plain_http,
            credential: target.credential.clone(),
            secrets: None,
            uses: Vec::new(),
            sources: vec![TargetSource::Configuration],
            expect: target.expect.clone(),
            rhythm: Rhythm {
                reach: target.reach.map_or(schedule.reach.0, |wait| wait.0),
                path: target.path.map_or(schedule.path.0, |wait| wait.0),
                transfer: target.transfer.unwrap_or(schedule.transfer).0,
            },
            reference,
        }
    }

    /// The target of an image that pods use.
    pub fn discovered(wanted: &Wanted, config: &Config) -> Self {
        let reference = wanted.witness.clone();
        Self {
            name: Arc::from(wanted.name.as_str()),
            registry: Arc::from(reference.domain()),
            platform: Platform::local(),
            plain_http: false,
            credential: config.kubernetes.credential.clone(),
            secrets: wanted.secrets.clone(),
            uses: wanted.uses.clone(),
            sources: vec![TargetSource::Pods],
            expect: Expect::default(),
            rhythm: Rhythm {
                reach: config.schedule.reach.0,
                path: config.schedule.path.0,
                transfer: config.schedule.transfer.0,
            },
            reference,
        }
    }

    /// The targets of a configuration, and images that pods use besides. An image of the configuration is not
    /// checked twice if the pods' pulls would be the same.
    pub fn all(config: &Config, discovered: &[Wanted]) -> Vec<Arc<Self>> {
        let named = config.targets.iter();
        let mut targets: Vec<Self> = named.map(|one| Self::of(one, &config.schedule)).collect();
        for wanted in discovered {
            let stands_for = |target: &&mut Self| target.stands_for(wanted, config);
            let mut same: Vec<&mut Self> = targets.iter_mut().filter(stands_for).collect();
            same.sort_by_key(|target| target.reference != wanted.witness);
            match same.into_iter().next() {
                Some(target) => {
                    target.uses.extend(wanted.uses.iter().cloned());
                    target.sources.push(TargetSource::Pods);
                }
                None => targets.push(Self::discovered(wanted, config)),
            }
        }
        targets.into_iter().map(Arc::new).collect()
    }

    /// Whether the results of this configured target hold for those pods too: they pull from the same repository
    /// with the same credential. If a pod waits for the image, the tag has to be the same as well.
    fn stands_for(&self, wanted: &Wanted, config: &Config) -> bool {
        let is_same_repository = self.reference.domain() == wanted.witness.domain()
            && self.reference.repository() == wanted.witness.repository();
        let is_configured = self.sources == [TargetSource::Configuration];
        is_same_repository
            && is_configured
            && wanted.secrets.is_none()
            && self.credential == config.kubernetes.credential
            && self.platform == Platform::local()
            && (self.reference == wanted.witness || !wanted.is_waited_for())
    }

    /// The pods that use the image, in the form of findings, with the result of reading their Secrets.
    pub fn pods(&self, lookups: &[SecretLookup]) -> Vec<PodUse> {
        let (uses, secrets) = (self.uses.iter().take(MAX_PODS), self.secrets.as_ref());
        uses.map(|one| PodUse {
            path: PodUse::CLUSTER.to_owned(),
            kind: "Pod".to_owned(),
            namespace: Some(one.namespace.clone()),
            name: one.pod.clone(),
            found_at: None,
            container: one.container.clone(),
            container_kind: one.kind,
            policy: one.policy,
            policy_is_default: false,
            image_present: one.is_present,
            pull_secrets: secrets.map_or_else(Vec::new, |secrets| secrets.names.clone()),
            service_account: None,
            eip: Vec::new(),
            progress_deadline: None,
            secrets: lookups.to_vec(),
        })
        .collect()
    }

    /// Whether only pods name the image.
    pub fn is_of_pods(&self) -> bool {
        !self.sources.contains(&TargetSource::Configuration)
    }

    /// The namespace whose share of the budgets its checks use: one of those whose pods use the image, not the same for
    /// all images that these have in common. Empty: the operator named it.
    pub fn namespace(&self) -> &str {
        if !self.is_of_pods() {
            return "";
        }
        let all = self.uses.iter().map(|one| one.namespace.as_str());
        all.min_by_key(|namespace| hash(&[&self.name, namespace]))
            .unwrap_or_default()
    }

    /// Its account in the ledger.
    pub fn account<'a>(&'a self, sharers: &Sharers) -> Account<'a> {
        sharers.account(&self.name, &self.registry, self.namespace())
    }

    /// Whether a check of the other target makes the same requests with the same credentials.
    pub fn is_same_pull(&self, other: &Self) -> bool {
        self.reference == other.reference
            && self.platform == other.platform
            && self.plain_http == other.plain_http
            && self.credential == other.credential
            && self.secrets == other.secrets
    }

    /// A container that runs with exactly this image while none waits for it: the node had it from somewhere.
    pub fn present_for(&self) -> Option<String> {
        let image = self.reference.to_string();
        let mut of_image = self.uses.iter().filter(|one| one.image == image);
        if of_image.clone().any(|one| one.waits) {
            return None;
        }
        let one = of_image.find(|one| one.is_present)?;
        Some(format!(
            "Pod {}/{}, container {}",
            one.namespace, one.pod, one.container
        ))
    }

    /// The expected rate in bytes per second: the larger of `expect.throughput_mbit` and of what
    /// `expect.pull_within` requires; `None` without an expectation.
    pub fn required(&self, image: Option<Bytes>) -> Option<f64> {
        let outright = self.expect.throughput_mbit;
        let outright = outright.map(|mbit| f64::from(mbit.0) * 1e6 / 8.0);
        let within = self.expect.pull_within.map(|wait| wait.0.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "images are below 2^53 bytes")]
        let by_time = image
            .zip(within)
            .map(|(image, within)| image.0 as f64 / within.max(0.001));
        [outright, by_time].into_iter().flatten().reduce(f64::max)
    }

    /// The longest expected download; `None` without an expectation or image size.
    pub fn within(&self, image: Option<Bytes>) -> Option<Duration> {
        let image = image?;
        let required = self.required(Some(image)).filter(|rate| *rate > 0.0)?;
        #[expect(clippy::cast_precision_loss, reason = "images are below 2^53 bytes")]
        let seconds = image.0 as f64 / required;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(more: &str) -> Arc<Target> {
        let text = format!("targets:\n  - name: a\n    image: r.test/a:1\n{more}");
        Target::all(&Config::parse(&text).unwrap(), &[]).remove(0)
    }

    #[test]
    fn the_stricter_wish_counts() {
        let image = Some(Bytes(125_000_000));
        let both = target("    expect: {throughput_mbit: 10, pull_within: 10s}\n");
        assert_eq!(both.required(image), Some(12_500_000.0));
        assert_eq!(both.required(None), Some(1_250_000.0));
        assert_eq!(both.within(image), Some(Duration::from_secs(10)));
        let outright = target("    expect: {throughput_mbit: 100}\n");
        assert_eq!(outright.within(image), Some(Duration::from_secs(10)));
        let none = target("");
        assert_eq!((none.required(image), none.within(image)), (None, None));
        assert_eq!(&*none.registry, "r.test");
    }

    #[test]
    fn a_configured_target_stands_for_pods_whose_pull_is_the_same() {
        let wanted = |image: &str, secrets: &[&str], waits: bool| {
            let witness: Reference = image.parse().unwrap();
            let secrets = (!secrets.is_empty()).then(|| SecretRefs {
                namespace: "shop".to_owned(),
                names: secrets.iter().map(|name| (*name).to_owned()).collect(),
                left_out: 0,
            });
            Wanted {
                name: format!("{}/{}", witness.domain(), witness.repository()),
                uses: vec![Use {
                    namespace: "shop".to_owned(),
                    pod: "a".to_owned(),
                    container: "app".to_owned(),
                    kind: crate::model::workload::ContainerKind::Container,
                    policy: crate::model::workload::PullPolicy::IfNotPresent,
                    image: image.to_owned(),
                    waits,
                    is_present: false,
                }],
                witness,
                secrets,
            }
        };
        let plain = "targets: [{name: mine, image: 'r.test/a:1'}]";
        let with_login =
            "targets: [{name: mine, image: 'r.test/a:1', credential: {docker_config: /c}}]";
        let both = format!("{with_login}\nkubernetes: {{credential: {{docker_config: /c}}}}");
        let other = "targets: [{name: mine, image: 'r.test/a:1', platform: linux/s390x}]";
        for (config, wanted, names) in [
            (plain, wanted("r.test/a:1", &[], true), vec!["mine"]),
            (plain, wanted("r.test/a:2", &[], false), vec!["mine"]),
            // The tag may be what is wrong.
            (
                plain,
                wanted("r.test/a:2", &[], true),
                vec!["mine", "r.test/a"],
            ),
            (
                plain,
                wanted("r.test/b:1", &[], false),
                vec!["mine", "r.test/b"],
            ),
            (
                plain,
                wanted("r.test/a:1", &["s"], false),
                vec!["mine", "r.test/a"],
            ),
            // That login is not the pods'.
            (
                with_login,
                wanted("r.test/a:1", &[], false),
                vec!["mine", "r.test/a"],
            ),
            (&both, wanted("r.test/a:1", &[], false), vec!["mine"]),
            (
                other,
                wanted("r.test/a:1", &[], false),
                vec!["mine", "r.test/a"],
            ),
        ] {
            let all = Target::all(&Config::parse(config).unwrap(), &[wanted]);
            let found: Vec<&str> = all.iter().map(|target| &*target.name).collect();
            assert_eq!(found, names, "{config}");
            if names.len() == 1 {
                let sources = [TargetSource::Configuration, TargetSource::Pods];
                assert_eq!((&all[0].sources[..], all[0].uses.len()), (&sources[..], 1));
            }
        }
    }

    #[test]
    fn an_image_is_present_for_a_container_that_has_it_while_none_waits() {
        let used = |pod: &str, image: &str, waits: bool, is_present: bool| Use {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            container: "app".to_owned(),
            kind: crate::model::workload::ContainerKind::Container,
            policy: crate::model::workload::PullPolicy::IfNotPresent,
            image: image.to_owned(),
            waits,
            is_present,
        };
        let of = |uses: &[Use]| {
            let mut target = Target::clone(&target(""));
            target.uses = uses.to_vec();
            target.present_for()
        };
        let has = used("a", "r.test/a:1", false, true);
        let other = used("b", "r.test/a:2", true, false);
        let waits = used("c", "r.test/a:1", true, false);
        let shown = Some("Pod shop/a, container app".to_owned());
        assert_eq!(of(&[other.clone(), has.clone()]), shown);
        assert_eq!(of(&[has, waits]), None);
        assert_eq!(of(&[used("d", "r.test/a:2", false, true)]), None);
    }

    #[test]
    fn a_target_may_have_a_rhythm_of_its_own() {
        let own = target("    reach: 30s\n    transfer: off\n");
        assert_eq!(own.rhythm.reach, Duration::from_secs(30));
        assert_eq!(own.rhythm.path, Duration::from_hours(1));
        assert_eq!(own.rhythm.transfer, None);
    }
}
