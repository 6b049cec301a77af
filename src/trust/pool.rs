//! The roots that a chain may lead to.

use std::collections::HashMap;
use std::sync::Arc;

use super::build::GoBuild;
use super::certificate::{Certificate, Malformed};

/// Roots with all that their certificates say: Go looks at dates, purposes and constraints of a root
/// too.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    roots: Vec<Root>,
    by_der: HashMap<Arc<[u8]>, usize>,
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

    /// Adds one; what is there already stays.
    ///
    /// # Errors
    /// When it is no certificate to Go.
    pub fn add(&mut self, der: &[u8], source: &Arc<str>) -> Result<(), Malformed> {
        if self.by_der.contains_key(der) {
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
