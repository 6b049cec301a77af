//! The trusted roots.

use std::collections::HashMap;
use std::sync::Arc;

use super::build::GoBuild;
use super::certificate::Certificate;
use super::der::Malformed;

/// Trusted roots with their full certificates: Go also checks dates, purposes and constraints of a root.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    roots: Vec<Root>,
    by_der: HashMap<Arc<[u8]>, usize>,
    /// Sources that changed after the runtime had read them.
    changed: Vec<Arc<str>>,
}

/// One trusted root.
#[derive(Clone, Debug)]
pub struct Root {
    /// The parsed certificate.
    pub certificate: Arc<Certificate>,
    /// The file or folder that it was read from.
    pub source: Arc<str>,
}

impl Pool {
    /// Whether the pool has no root.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The number of distinct roots.
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// All roots, in the order in which they were added.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Adds a root; a duplicate is ignored. If a duplicate is in a source that did not change, the root counts as read
    /// from that source.
    ///
    /// # Errors
    /// If Go can't parse the certificate.
    pub fn add(&mut self, der: &[u8], source: &Arc<str>) -> Result<(), Malformed> {
        if let Some(known) = self.by_der.get(der) {
            let root = &mut self.roots[*known];
            if self.changed.contains(&root.source) {
                root.source = source.clone();
            }
            return Ok(());
        }
        let certificate = Certificate::parse(der)?;
        self.by_der
            .insert(certificate.shared_der(), self.roots.len());
        self.roots.push(Root {
            certificate: Arc::new(certificate),
            source: source.clone(),
        });
        Ok(())
    }

    /// Marks files and folders that changed after the runtime had read them: the runtime may have other roots.
    pub fn note_changed(&mut self, sources: impl IntoIterator<Item = Arc<str>>) {
        self.changed.extend(sources);
    }

    /// The pool without roots that the runtime may lack; `None` if no source changed. A root for which `is_public`
    /// holds is kept: the runtime had it before the change.
    pub fn unchanged(&self, is_public: impl Fn(&[u8]) -> bool) -> Option<Self> {
        if self.changed.is_empty() {
            return None;
        }
        let mut kept = Self::default();
        for root in &self.roots {
            let der = root.certificate.shared_der();
            if !self.changed.contains(&root.source) || is_public(&der) {
                kept.by_der.insert(der, kept.roots.len());
                kept.roots.push(root.clone());
            }
        }
        Some(kept)
    }

    /// A root with the issuer's name that had expired at `now` (seconds since 1970).
    pub fn expired_issuer(&self, certificate: &Certificate, now: i64) -> Option<&Root> {
        let issuer = certificate.part(&certificate.issuer);
        let (index, _) = self.named(issuer).find(|(_, root)| root.not_after < now)?;
        self.roots.get(index)
    }

    /// The index of this very certificate, if `build` can parse it.
    pub(super) fn find(&self, der: &[u8], build: &GoBuild, hopeful: bool) -> Option<usize> {
        let index = *self.by_der.get(der)?;
        let refused = self.roots[index].certificate.refused_by(build, hopeful);
        refused.is_none().then_some(index)
    }

    /// The roots with this subject, and their indexes.
    pub(super) fn named<'a>(
        &'a self,
        subject: &'a [u8],
    ) -> impl Iterator<Item = (usize, &'a Certificate)> {
        let all = self.roots.iter().enumerate();
        all.map(|(index, root)| (index, root.certificate.as_ref()))
            .filter(move |(_, certificate)| certificate.part(&certificate.subject) == subject)
    }
}
