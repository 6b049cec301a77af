//! The content of an image, in containerd's order: the manifest, the configuration, the layers. Each is requested from
//! the hosts in their order, starting with the first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes as Body;

use super::check::Budget;
use super::content::{Part, ReadExtent, Reader};
use super::host::{Content, HostWalk, MAX_MANIFEST, ends_pull, is_access};
use super::large_documents::DocumentTurn;
use super::session::{ResponseHead, Session};
use super::unpack;
use super::{HostsWalk, transfer};
use crate::containerd::behaviour::{Behaviour, Release};
use crate::model::evidence::{BlobFound, ContentRead, LayerRead, ManifestFound, Walk};
use crate::model::fault::{HttpFault, ManifestFault};
use crate::model::step::{Skip, Step};
use crate::model::units::Bytes;
use crate::net::http::HttpConnection;
use crate::registry::manifest::{self as oci, Descriptor, Image, Kind, Manifest};

/// Layers up to this size in bytes are read completely, if layers are read at all.
const SMALL_LAYER: i64 = 1 << 20;
/// Total bytes of small layers that are read beside a transfer test with a budget.
const SMALL_LAYERS: i64 = 4 << 20;

/// `max_concurrent_downloads` of containerd.
const STREAMS: usize = 3;

/// How long a server gets to notice that downloads ended, before the layer that it refused beside them is requested again.
const AFTER_OTHERS: Duration = Duration::from_millis(300);

/// An index may contain indexes; real ones are not nested more deeply.
const MAX_NESTING: usize = 8;
/// Manifests of one image; containerd 2.1 pulls all that match.
const MAX_MANIFESTS: usize = 16;

/// Bytes; a larger document is read in turn.
const LARGE_DOCUMENT: i64 = 1 << 20;

/// The host that decides, if content could not be read.
pub(super) struct Refused {
    pub host: usize,
    /// Whether another credential may change the result.
    pub by_access: bool,
}

/// Content that was read.
struct FetchedContent {
    host: usize,
    body: Body,
    read: ContentRead,
    source: BlobFound,
}

/// Content with a first response whose body has not been read.
struct StartedContent {
    content: Content,
    descriptor: Descriptor,
    host: usize,
    source: BlobFound,
    got: ResponseHead,
    reader: Reader,
    start: Instant,
    /// The connection of the response, if other requests are sent at the same time.
    connection: Option<HttpConnection>,
}

/// Content that could not be read.
struct FailedContent {
    /// The last host that was queried.
    host: usize,
    fault: HttpFault,
    took: Duration,
}

impl<'a> HostsWalk<'a> {
    /// Downloads everything that a descriptor leads to. Returns the host that served the layers, or the manifest if
    /// there are none.
    pub(super) async fn fetch(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        root: &Descriptor,
        resolved_by: usize,
    ) -> Result<usize, Refused> {
        let mut images = Vec::new();
        let mut found: Option<(usize, ManifestFound)> = None;
        let mut queue = vec![(root.clone(), None, 0usize)];
        let mut platforms = (Vec::new(), 0);
        let start = Instant::now();
        let (mut fetched, mut parsed) = (0, 0);
        while let Some((descriptor, platform, depth)) = queue.pop() {
            parsed += 1;
            if parsed > MAX_MANIFESTS {
                let reason = format!(
                    "it leads to more than {MAX_MANIFESTS} manifests, which are not all followed"
                );
                let fault = ManifestFault::Undecided { reason };
                let holder = found.as_ref().map_or(resolved_by, |(holder, _)| *holder);
                return Err(no_manifest(visits, holder, fault, start));
            }
            let manifest = self.manifest_in_turn(visits, &descriptor, resolved_by, &mut fetched);
            let manifest = Box::pin(manifest).await;
            let (host, body, turn) =
                manifest.map_err(|(host, fault)| no_manifest(visits, host, fault, start))?;
            let holder = found.as_ref().map_or(host, |(holder, _)| *holder);
            let refuse = |visits: &mut [Option<HostWalk<'a>>], fault| {
                Err(no_manifest(visits, holder, fault, start))
            };
            let read = oci::parse(
                &body,
                Kind::of(&descriptor.media_type),
                &self.check.platform,
            );
            drop((body, turn));
            match read {
                Err(fault) => return refuse(visits, fault),
                Ok(Manifest::Index(index)) => {
                    if depth >= MAX_NESTING {
                        let reason = format!(
                            "its indexes are nested more than {MAX_NESTING} deep, which are not all followed"
                        );
                        return refuse(visits, ManifestFault::Undecided { reason });
                    }
                    let names = (index.platforms, index.platforms_left_out);
                    let chosen = self.rules.decide(|b| {
                        let exactly = b.unpacks_as() >= Release::V2_1;
                        let chosen = oci::select(&index.entries, &self.check.platform, exactly);
                        let chosen = chosen.into_iter().cloned();
                        chosen.collect::<Vec<_>>()
                    });
                    if chosen.is_empty() {
                        return refuse(visits, no_platform(names));
                    }
                    // containerd then computes the image's size for an entry with a platform, which was not downloaded.
                    if index.has_platform && chosen.iter().all(|entry| entry.platform.is_none()) {
                        return refuse(visits, no_platform(names));
                    }
                    if platforms.0.is_empty() {
                        platforms = names;
                    }
                    for entry in chosen.into_iter().rev() {
                        let wants = entry.platform.is_none();
                        queue.push((entry.descriptor, Some(wants), depth + 1));
                    }
                }
                Ok(Manifest::Image(image)) => {
                    if found.is_none() {
                        let value = found_of(root, &descriptor, &platforms, &image, fetched);
                        found = Some((host, value));
                    }
                    images.push((image, platform == Some(true)));
                }
            }
        }
        let Some((holder, mut value)) = found else {
            return Err(no_manifest(visits, 0, no_platform(platforms), start));
        };
        value.fetched = fetched;
        if let Some(visit) = visits[holder].as_mut() {
            visit.walk.manifest = Step::from_result(Ok(value.clone()), start.elapsed());
        }
        let mut served = holder;
        for (image, wants_platform) in &images {
            let read = self.image(visits, holder, (image, &value), *wants_platform);
            served = served.max(Box::pin(read).await?);
        }
        self.transfer(visits, served, &value).await;
        let deciding = served.max(holder);
        settle(visits, deciding);
        Ok(deciding)
    }

    /// Waits until a document may be read: few large ones are at the same time, whatever checks run.
    ///
    /// # Errors
    /// If those of other checks took too long.
    async fn turn_for(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Option<DocumentTurn>, ManifestFault> {
        if descriptor.size <= LARGE_DOCUMENT {
            return Ok(None);
        }
        let documents = &self.probe_network.large_documents;
        let registry = self.check.reference.domain();
        let turn = documents.take(registry, self.probe_network.wait).await;
        turn.map(Some).ok_or_else(|| ManifestFault::Undecided {
            reason: format!(
                "it has a document of {}, and other checks read theirs for too long before it",
                size_of(descriptor)
            ),
        })
    }

    /// A manifest by its digest, a large one in turn.
    async fn manifest_in_turn(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        descriptor: &Descriptor,
        resolved_by: usize,
        fetched: &mut usize,
    ) -> Result<(usize, Body, Option<DocumentTurn>), (usize, ManifestFault)> {
        let undecided = |fault| (resolved_by, fault);
        let turn = self.turn_for(descriptor).await.map_err(undecided)?;
        let manifest = self.manifest(visits, descriptor, resolved_by, fetched);
        let manifest = in_turn(turn.as_ref(), descriptor, manifest);
        let (host, body) = Box::pin(manifest).await.map_err(undecided)??;
        Ok((host, body, turn))
    }

    /// A manifest by its digest, from memory or by one `GET`.
    async fn manifest(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        descriptor: &Descriptor,
        resolved_by: usize,
        fetched: &mut usize,
    ) -> Result<(usize, Body), (usize, ManifestFault)> {
        let at_resolver = |fault| (resolved_by, fault);
        match Kind::of(&descriptor.media_type) {
            Kind::Index | Kind::Image => {}
            Kind::Schema1 if self.rules.decide(|b| b.release < Release::V2_0) => {
                let reason = "it was sent as schema 1, which containerd 1 converts but this program does not"
                    .to_owned();
                return Err(at_resolver(ManifestFault::Undecided { reason }));
            }
            Kind::Schema1 | Kind::Other => {
                let media_type = descriptor.media_type.clone();
                return Err(at_resolver(ManifestFault::Unsupported { media_type }));
            }
        }
        if is_too_large(descriptor) {
            return Err(at_resolver(too_large("it", descriptor)));
        }
        if descriptor.size <= 0 {
            let reason = format!(
                "its descriptor gives a size of {} bytes, which containerd does not download",
                descriptor.size
            );
            return Err(at_resolver(ManifestFault::Malformed { reason }));
        }
        if let Some(body) = self.probe_network.known.find(&descriptor.digest) {
            return Ok((resolved_by, body));
        }
        if self.check.effort.only_free {
            return Err(at_resolver(ManifestFault::Http {
                fault: HttpFault::NotRequested,
            }));
        }
        *fetched += 1;
        let extent = ReadExtent::Whole { max: MAX_MANIFEST };
        match self
            .content(visits, Content::Manifest, descriptor, extent)
            .await
        {
            Ok(found) => {
                self.probe_network
                    .known
                    .keep(&descriptor.digest, &found.body);
                Ok((found.host, found.body))
            }
            Err(missed) => Err((missed.host, of_manifest(missed.fault))),
        }
    }

    /// Reads the configuration and the layers of one image, and checks whether containerd could unpack them.
    async fn image(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        holder: usize,
        (image, found): (&Image, &ManifestFound),
        wants_platform: bool,
    ) -> Result<usize, Refused> {
        // Content that is not a layer by its type is requested at once, at the same time as the configuration.
        let others: Vec<Descriptor> = self.rules.decide(|b| {
            let others = image.layers.others(b.release >= Release::V2_0);
            others
                .into_iter()
                .map(|layer| layer.descriptor.clone())
                .collect()
        });
        let has_others = !others.is_empty();
        let start = Instant::now();
        if is_too_large(&image.config) {
            let fault = too_large("the image's configuration", &image.config);
            return Err(no_manifest(visits, holder, fault, start));
        }
        if image.layers.urls_left_out {
            let reason = "its layers have more URLs, or longer ones, than are read here".to_owned();
            return Err(no_manifest(
                visits,
                holder,
                ManifestFault::Undecided { reason },
                start,
            ));
        }
        if has_others {
            sessions(visits).for_each(Session::part);
        }
        let turn = match self.turn_for(&image.config).await {
            Ok(turn) => turn,
            Err(fault) => return Err(no_manifest(visits, holder, fault, start)),
        };
        let extent = ReadExtent::Whole { max: MAX_MANIFEST };
        let config = self.content(visits, Content::Config, &image.config, extent);
        let config = match Box::pin(in_turn(turn.as_ref(), &image.config, config)).await {
            Ok(config) => config,
            Err(fault) => return Err(no_manifest(visits, holder, fault, start)),
        };
        if has_others {
            sessions(visits).for_each(Session::swap);
        }
        let config = config.map_err(|missed| refused(visits, Content::Config, &missed))?;
        let (config_host, body) = (config.host, config.body);
        if let Some(visit) = host_of(visits, config_host) {
            visit.walk.config = Some(Step::from_result(Ok(config.read), start.elapsed()));
        }
        let plan = self
            .rules
            .decide(|b| unpack::plan(image, &body, b.unpacks_as()));
        let plan = match unpack::is_for(&body, &self.check.platform) {
            Err(found) if wants_platform => Err(no_platform((vec![found], 0))),
            _ => plan,
        };
        drop((body, turn));
        let served = config_host.max(Box::pin(self.layers(visits, &others, &[])).await?);
        if has_others {
            sessions(visits).for_each(Session::join);
        }
        let plan = match plan {
            Ok(plan) => plan,
            Err(fault) => {
                let is_malformed = matches!(fault, ManifestFault::Malformed { .. });
                let refused = no_manifest(visits, holder, fault, start);
                // No pull of this image reads its layers, but pulls of its repaired form and of its neighbors do: the
                // state of their storage is worth knowing.
                let rest = image.layers.shown().into_iter();
                let rest: Vec<Descriptor> =
                    rest.filter(|one| !others.contains(one)).cloned().collect();
                if is_malformed && let Ok(host) = Box::pin(self.layers(visits, &rest, &[])).await {
                    Box::pin(self.transfer(visits, host, found)).await;
                }
                return Err(refused);
            }
        };
        if let Some(visit) = host_of(visits, holder)
            && let Step::Done { value, .. } = &mut visit.walk.manifest
        {
            value.not_an_image |= plan.not_an_image;
        }
        if plan.layers.is_empty() && !has_others {
            if let Some(visit) = host_of(visits, served) {
                visit.walk.blob = Step::skipped(Skip::NoLayer);
            }
            return Ok(served);
        }
        Ok(served.max(Box::pin(self.layers(visits, &plan.layers, &plan.diff_ids)).await?))
    }

    /// Reads layers, as many at the same time as containerd, each on its own connection. Returns the last of the hosts
    /// that served one.
    async fn layers(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        layers: &[Descriptor],
        diff_ids: &[String],
    ) -> Result<usize, Refused> {
        let mut served = 0;
        let mut chosen = self.chosen(layers).into_iter();
        let mut begun: VecDeque<(Option<&str>, StartedContent)> = VecDeque::new();
        loop {
            while begun.len() < STREAMS
                && let Some((index, descriptor, extent)) = chosen.next()
            {
                let diff_id = diff_ids.get(index).map(String::as_str);
                // The first bytes of a small layer may be all of it, which are then unpacked.
                let started = self.begin(visits, Content::Layer, descriptor, extent).await;
                let mut one = match started {
                    Ok(one) => one,
                    Err(missed) => {
                        let refused =
                            self.refused_beside(visits, (descriptor, extent), &missed, begun);
                        return Err(Box::pin(refused).await);
                    }
                };
                let line = one.got.pending.line;
                let visit = host_of(visits, one.host);
                one.connection = visit.and_then(|visit| visit.lines.take(line));
                begun.push_back((diff_id, one));
            }
            let Some((diff_id, one)) = begun.pop_front() else {
                return Ok(served);
            };
            served = served.max(self.layer(visits, one, diff_id).await?);
        }
    }

    /// A layer that a host refused, perhaps because it was sending others. Those are read as planned, and then the layer
    /// is requested once more, alone: that shows whether their number is the reason. It changes no result.
    async fn refused_beside(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        (descriptor, extent): (&Descriptor, ReadExtent),
        missed: &FailedContent,
        begun: VecDeque<(Option<&str>, StartedContent)>,
    ) -> Refused {
        let beside = begun.iter().filter(|(_, one)| one.host == missed.host);
        let beside = beside.count();
        let mut served_alone = false;
        if beside > 0 && matches!(missed.fault, HttpFault::Status { .. }) {
            let mut is_served = true;
            for (diff_id, one) in begun {
                is_served &= self.layer(visits, one, diff_id).await.is_ok();
            }
            if is_served {
                // A server needs a moment to notice that a download ended.
                tokio::time::sleep(AFTER_OTHERS).await;
                let again = self.begin(visits, Content::Layer, descriptor, extent).await;
                served_alone = again.is_ok_and(|one| one.host == missed.host);
            }
        }
        let refused = no_layer(visits, &descriptor.digest, missed);
        if let Some(visit) = host_of(visits, missed.host)
            && let Some(layer) = visit.walk.layers.last_mut()
        {
            (layer.refused_beside, layer.served_alone) = (beside, served_alone);
        }
        refused
    }

    /// Which layers are requested, and how much of each.
    fn chosen<'l>(&self, layers: &'l [Descriptor]) -> Vec<(usize, &'l Descriptor, ReadExtent)> {
        let enough = self.check.effort.layer_bytes.get();
        let witness = oci::witness(layers).map(|layer| layer.digest.as_str());
        let reads = self.check.effort.transfer.as_ref();
        let mut left = match reads {
            Some(budget) if budget.full => i64::MAX,
            Some(budget) => SMALL_LAYERS.min(i64::try_from(budget.max_bytes.0 / 4).unwrap_or(0)),
            None => 0,
        };
        let mut chosen: Vec<(usize, &Descriptor, ReadExtent)> = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            if chosen
                .iter()
                .any(|(_, other, _)| other.digest == layer.digest)
            {
                continue;
            }
            let is_read = layer.size <= SMALL_LAYER && layer.size <= left;
            if is_read {
                left -= layer.size.max(0);
                let max = u64::try_from(SMALL_LAYER * 2).unwrap_or(u64::MAX);
                chosen.push((index, layer, ReadExtent::Small { max }));
            } else if witness == Some(layer.digest.as_str()) {
                chosen.push((index, layer, ReadExtent::First { bytes: enough }));
            }
        }
        chosen
    }

    /// Reads a layer, and checks whether it can be unpacked.
    async fn layer(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        begun: StartedContent,
        diff_id: Option<&str>,
    ) -> Result<usize, Refused> {
        let (descriptor, start) = (begun.descriptor.clone(), begun.start);
        let found = self.finish(visits, begun).await;
        let found = found.map_err(|missed| no_layer(visits, &descriptor.digest, &missed))?;
        let (took, host) = (start.elapsed(), found.host);
        let is_whole = found.read.verified;
        if let Err(fault) = unpack::check(&descriptor.media_type, &found.body, diff_id, is_whole) {
            let missed = FailedContent { host, fault, took };
            return Err(no_layer(visits, &descriptor.digest, &missed));
        }
        if let Some(visit) = host_of(visits, host) {
            visit.walk.layers.push(LayerRead {
                digest: descriptor.digest,
                outcome: Step::from_result(Ok(found.read), took),
                refused_beside: 0,
                served_alone: false,
            });
            let is_new = visit.walk.blob.done().is_none();
            if is_new || !found.source.redirects.is_empty() {
                let value = found.source;
                visit.walk.blob = Step::Done { value, took };
            }
        }
        Ok(host)
    }

    /// Reads content by its digest, completely or in part.
    async fn content(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        content: Content,
        descriptor: &Descriptor,
        extent: ReadExtent,
    ) -> Result<FetchedContent, FailedContent> {
        let begun = self.begin(visits, content, descriptor, extent).await?;
        self.finish(visits, begun).await
    }

    /// Requests content from each host in turn, until one serves it.
    async fn begin(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        content: Content,
        descriptor: &Descriptor,
        extent: ReadExtent,
    ) -> Result<StartedContent, FailedContent> {
        let start = Instant::now();
        let missed = missed_since(start);
        let first = visits.iter().position(Option::is_some).unwrap_or(0);
        if descriptor.size == 0 || descriptor.size < -1 {
            let reason = format!(
                "the descriptor gives a size of {} bytes, which containerd does not download",
                descriptor.size
            );
            return Err(missed(first, HttpFault::malformed(reason)));
        }
        if crate::model::reference::check_digest(&descriptor.digest).is_err() {
            let fault = HttpFault::malformed("the descriptor's digest is not valid");
            return Err(missed(first, fault));
        }
        let (host, got) = self
            .request_content(visits, content, descriptor, 0)
            .await
            .map_err(|(host, fault)| missed(host, fault))?;
        Ok(StartedContent {
            content,
            descriptor: descriptor.clone(),
            host,
            source: source_of(descriptor, &got),
            got,
            reader: Reader::new(descriptor, extent),
            start,
            connection: None,
        })
    }

    /// Reads content to its end, and requests the rest if its body ends early.
    async fn finish(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        begun: StartedContent,
    ) -> Result<FetchedContent, FailedContent> {
        let StartedContent {
            content,
            descriptor,
            mut host,
            source,
            mut got,
            mut reader,
            start,
            connection,
        } = begun;
        let began_at = (host, got.pending.line);
        let missed = missed_since(start);
        loop {
            let is_coded = got.headers().contains_key(http::header::CONTENT_ENCODING);
            let decodes = is_coded && self.rules.decide(Behaviour::decodes_encodings);
            let part = reader
                .read(&mut got, decodes, self.probe_network.wait)
                .await;
            let fault = match &part {
                Part::Done => None,
                Part::EndedEarly { want } => Some(HttpFault::Truncated {
                    got: Bytes(reader.offset()),
                    want: *want,
                }),
                Part::Failed(fault) | Part::NextHost(fault) => Some(fault.clone()),
            };
            if let Some(visit) = host_of(visits, host) {
                got.pending.note(&mut visit.lines, fault.as_ref());
            }
            match (part, fault) {
                (Part::EndedEarly { .. }, Some(fault)) => {
                    drop(got);
                    if reader.gives_up() {
                        return Err(missed(host, fault));
                    }
                    if let Some(limit) = reader.over_limit() {
                        return Err(missed(host, limit));
                    }
                    // If no host serves the rest, the reported fault is that the body ended.
                    (host, got) = self
                        .request_content(visits, content, &descriptor, reader.offset())
                        .await
                        .map_err(|(_, why)| {
                            missed(host, if why.is_own_limit() { why } else { fault })
                        })?;
                }
                (Part::NextHost(_), Some(fault)) => {
                    drop(got);
                    if let Some(visit) = host_of(visits, host) {
                        visit.refuse(content, &fault, start.elapsed());
                    }
                    (host, got) = self
                        .open(visits, content, &descriptor, reader.offset(), host + 1)
                        .await
                        .map_err(|_| missed(host, fault))?;
                }
                (_, Some(fault)) => return Err(missed(host, fault)),
                _ => break,
            }
        }
        drop(got);
        if let Some(connection) = connection
            && let Some(visit) = host_of(visits, began_at.0)
        {
            visit.lines.give_back(began_at.1, connection);
        }
        let Some(visit) = host_of(visits, host) else {
            return Err(missed(host, HttpFault::Closed));
        };
        let (read, body) = reader
            .conclude(&visit.lines.scrub)
            .map_err(|fault| missed(host, fault))?;
        Ok(FetchedContent {
            host,
            body,
            read,
            source,
        })
    }

    /// Requests content from the URLs in its descriptor, or from the hosts.
    async fn request_content(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        content: Content,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(usize, ResponseHead), (usize, HttpFault)> {
        let first = visits.iter().position(Option::is_some).unwrap_or(0);
        let elsewhere = match host_of(visits, first) {
            Some(visit) if !descriptor.urls.is_empty() => {
                visit.get_elsewhere(descriptor, offset).await
            }
            _ => None,
        };
        match elsewhere {
            Some(Ok(got)) => Ok((first, got)),
            Some(Err(fault)) => Err((first, fault)),
            None => self.open(visits, content, descriptor, offset, 0).await,
        }
    }

    /// Requests content, from a byte on, from the hosts in their order, starting with one of them. Their rejections are
    /// recorded; the last one is returned.
    async fn open(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        content: Content,
        descriptor: &Descriptor,
        offset: u64,
        from: usize,
    ) -> Result<(usize, ResponseHead), (usize, HttpFault)> {
        let mut last = (from, HttpFault::Closed);
        let hosts = visits.len();
        for index in from..hosts {
            self.visit(visits, index).await;
            let Some(visit) = visits[index].as_mut() else {
                continue;
            };
            let start = Instant::now();
            let is_last = index + 1 == hosts;
            let answer = visit.get(content, descriptor, offset, is_last).await;
            match answer {
                Ok(got) => return Ok((index, got)),
                Err(fault) => {
                    visit.refuse(content, &fault, start.elapsed());
                    let ends = ends_pull(&fault);
                    last = (index, fault);
                    if ends {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// Runs the transfer test at the host that serves the layers.
    async fn transfer(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
        served: usize,
        found: &ManifestFound,
    ) {
        // The comparison without the proxy would read the layers a second time.
        let Some(budget) = self.check.effort.transfer.as_ref().filter(|_| !self.direct) else {
            return;
        };
        // Layers that were read completely, at whichever host, are not read again.
        let verified = |walk: &Walk| {
            let layers = walk.layers.iter();
            let whole = layers.filter(|l| l.outcome.done().is_some_and(|read| read.verified));
            whole.map(|l| l.digest.clone()).collect::<Vec<_>>()
        };
        let read: Vec<String> = visits
            .iter()
            .flatten()
            .flat_map(|visit| verified(&visit.walk))
            .collect();
        let layers = visits.iter().flatten().flat_map(|visit| &visit.walk.layers);
        let small: u64 = layers.filter_map(|l| Some(l.outcome.done()?.bytes.0)).sum();
        let Some(visit) = host_of(visits, served) else {
            return;
        };
        if visit.walk.blob.done().is_none() {
            return;
        }
        let Some(admitted) = visit.admitted() else {
            return;
        };
        let read_here = verified(&visit.walk);
        let verified_layers = found
            .layers
            .iter()
            .filter(|l| read_here.contains(&l.digest));
        let largest = verified_layers.max_by_key(|layer| layer.size).cloned();
        let mut found = found.clone();
        found.layers.retain(|layer| !read.contains(&layer.digest));
        if found.layers.is_empty() {
            if let Some(layer) = largest {
                let range = transfer::test_range_request(&mut visit.lines, &admitted, &layer).await;
                visit.note_range(range);
            }
            return;
        }
        // Both share one bound.
        let left = budget.max_bytes.0.saturating_sub(small);
        let budget = Budget {
            max_bytes: Bytes(left),
            ..budget.clone()
        };
        let _turn = self.probe_network.transfer_lock.lock().await;
        let measured = transfer::measure(&mut visit.lines, &admitted, &found, &budget);
        let (transfer, range) = measured.await;
        visit.walk.transfer = Some(transfer);
        visit.note_range(range);
    }
}

fn sessions<'v, 'a>(
    visits: &'v mut [Option<HostWalk<'a>>],
) -> impl Iterator<Item = &'v mut Session<'a>> {
    let visits = visits.iter_mut().flatten();
    visits.filter_map(|visit| visit.session.as_mut())
}

fn host_of<'v, 'a>(
    visits: &'v mut [Option<HostWalk<'a>>],
    index: usize,
) -> Option<&'v mut HostWalk<'a>> {
    visits.get_mut(index)?.as_mut()
}

fn missed_since(start: Instant) -> impl Fn(usize, HttpFault) -> FailedContent {
    move |host, fault| FailedContent {
        host,
        fault,
        took: start.elapsed(),
    }
}

fn no_manifest(
    visits: &mut [Option<HostWalk<'_>>],
    host: usize,
    fault: ManifestFault,
    start: Instant,
) -> Refused {
    let by_access = matches!(&fault, ManifestFault::Http { fault } if is_access(fault));
    if let Some(visit) = host_of(visits, host) {
        match fault {
            ManifestFault::Http {
                fault: HttpFault::NotRequested,
            } => visit.reserve_quota(),
            fault => visit.fail_manifest(fault, start.elapsed()),
        }
    }
    Refused { host, by_access }
}

fn no_layer(visits: &mut [Option<HostWalk<'_>>], digest: &str, missed: &FailedContent) -> Refused {
    if let Some(visit) = host_of(visits, missed.host) {
        visit.walk.layers.push(LayerRead {
            digest: crate::model::text::printable(digest),
            outcome: Step::from_result(Err(missed.fault.clone()), missed.took),
            refused_beside: 0,
            served_alone: false,
        });
    }
    refused(visits, Content::Layer, missed)
}

fn refused(
    visits: &mut [Option<HostWalk<'_>>],
    content: Content,
    missed: &FailedContent,
) -> Refused {
    if let Some(visit) = host_of(visits, missed.host) {
        visit.refuse(content, &missed.fault, missed.took);
    }
    Refused {
        host: missed.host,
        by_access: is_access(&missed.fault),
    }
}

/// Marks what the deciding host need not serve, because another host did.
fn settle(visits: &mut [Option<HostWalk<'_>>], deciding: usize) {
    let Some(visit) = host_of(visits, deciding) else {
        return;
    };
    let walk = &mut visit.walk;
    if walk.manifest.done().is_none() {
        walk.manifest = Step::skipped(Skip::OtherHost);
    }
    if walk.blob.done().is_none() && walk.blob != Step::skipped(Skip::NoLayer) {
        walk.blob = Step::skipped(Skip::OtherHost);
    }
}

/// Where content was served from.
fn source_of(descriptor: &Descriptor, got: &ResponseHead) -> BlobFound {
    let length = got.headers().get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    BlobFound {
        digest: descriptor.digest.clone(),
        range_honoured: None,
        range_refused_with: None,
        redirects: got.redirects.clone(),
        size: length.map(Bytes),
        first_byte: got.pending.response.first_byte,
    }
}

fn no_platform((available, left_out): (Vec<String>, usize)) -> ManifestFault {
    ManifestFault::NoPlatform {
        available,
        left_out,
    }
}

/// Whether a document is larger than what is read. containerd has no limit for what an index or a manifest names.
fn is_too_large(descriptor: &Descriptor) -> bool {
    u64::try_from(descriptor.size).is_ok_and(|size| size > MAX_MANIFEST)
}

fn too_large(what: &str, descriptor: &Descriptor) -> ManifestFault {
    let (size, limit) = (size_of(descriptor), Bytes(MAX_MANIFEST));
    ManifestFault::Undecided {
        reason: format!("{what} has {size}, and at most {limit} are read here"),
    }
}

fn size_of(descriptor: &Descriptor) -> Bytes {
    Bytes(u64::try_from(descriptor.size).unwrap_or(0))
}

/// Reads a document during its turn.
///
/// # Errors
/// If it took too long for the checks that wait to read theirs.
async fn in_turn<T>(
    turn: Option<&DocumentTurn>,
    descriptor: &Descriptor,
    read: impl Future<Output = T>,
) -> Result<T, ManifestFault> {
    let Some(turn) = turn else {
        return Ok(read.await);
    };
    turn.read(read)
        .await
        .ok_or_else(|| ManifestFault::Undecided {
            reason: format!(
                "its document of {} took too long to arrive, and other checks waited to read theirs",
                size_of(descriptor)
            ),
        })
}

fn found_of(
    root: &Descriptor,
    manifest: &Descriptor,
    (platforms, platforms_left_out): &(Vec<String>, usize),
    image: &Image,
    fetched: usize,
) -> ManifestFound {
    let layers: Vec<_> = image
        .layers
        .shown()
        .into_iter()
        .map(Descriptor::layer)
        .collect();
    ManifestFound {
        digest: root.digest.clone(),
        media_type: manifest.media_type.clone(),
        platform_digest: manifest.digest.clone(),
        platforms: platforms.clone(),
        platforms_left_out: *platforms_left_out,
        config: Some(image.config.layer()),
        layers_size: Bytes(image.layers.bytes),
        layers_left_out: image.layers.count - layers.len(),
        layers,
        not_an_image: false,
        fetched,
    }
}

fn of_manifest(fault: HttpFault) -> ManifestFault {
    match fault {
        HttpFault::WrongDigest { expected, got } => ManifestFault::DigestMismatch { expected, got },
        fault => ManifestFault::Http { fault },
    }
}
