//! The roots that a chain may lead to.

use std::collections::HashMap;
use std::sync::Arc;

use super::build::GoBuild;
use super::certificate::Certificate;
use super::der::Malformed;

/// Roots with all that their certificates say: Go looks at dates, purposes and constraints of a root
/// too.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    roots: Vec<Root>,
    by_der: HashMap<Arc<[u8]>, usize>,
    /// Sources that were changed after the runtime had read them.
    changed: Vec<Arc<str>>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Root {
    pub certificate: Arc<Certificate>,
    /// The file or folder that it is from.
    pub source: Arc<str>,
}

impl Pool {
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    pub fn len(&self) -> usize {
        self.roots.len()
    }

    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Adds one; what is there already stays. From a source that was not changed it counts as of that one.
    ///
    /// # Errors
    /// When it is no certificate to Go.
    pub fn add(&mut self, der: &[u8], source: &Arc<str>) -> Result<(), Malformed> {
        if let Some(known) = self.by_der.get(der) {
            let root = &mut self.roots[*known];
            if self.changed.contains(&root.source) {
                root.source = source.clone();
            }
            return Ok(());
        }
        let certificate = Certificate::parse(der)?;
        self.by_der.insert(der.into(), self.roots.len());
        self.roots.push(Root {
            certificate: Arc::new(certificate),
            source: source.clone(),
        });
        Ok(())
    }

    /// The roots from these files and folders may not be those that the runtime has: it read them before
    /// they were changed.
    pub fn note_changed(&mut self, sources: impl IntoIterator<Item = Arc<str>>) {
        self.changed.extend(sources);
    }

    /// Without the roots that may be missing in the runtime; `None` where all it has is known. A root for
    /// which `is_public` holds was there before, too.
    pub fn unchanged(&self, is_public: impl Fn(&[u8]) -> bool) -> Option<Self> {
        if self.changed.is_empty() {
            return None;
        }
        let mut kept = Self::default();
        for root in &self.roots {
            let der = root.certificate.der();
            if !self.changed.contains(&root.source) || is_public(der) {
                kept.by_der.insert(der.into(), kept.roots.len());
                kept.roots.push(root.clone());
            }
        }
        Some(kept)
    }

    /// A root of the issuer's name that was over by `now` (seconds since 1970).
    pub fn expired_issuer(&self, certificate: &Certificate, now: i64) -> Option<&Root> {
        let issuer = certificate.part(&certificate.issuer);
        let (index, _) = self.named(issuer).find(|(_, root)| root.not_after < now)?;
        self.roots.get(index)
    }

    /// The place of this very certificate among the roots that `build` reads.
    pub(super) fn find(&self, der: &[u8], build: &GoBuild, hopeful: bool) -> Option<usize> {
        let index = *self.by_der.get(der)?;
        let refused = self.roots[index].certificate.refused_by(build, hopeful);
        refused.is_none().then_some(index)
    }

    /// Those with this name.
    pub(super) fn named<'a>(
        &'a self,
        subject: &'a [u8],
    ) -> impl Iterator<Item = (usize, &'a Certificate)> {
        let all = self.roots.iter().enumerate();
        all.map(|(index, root)| (index, root.certificate.as_ref()))
            .filter(move |(_, certificate)| certificate.part(&certificate.subject) == subject)
    }
}
