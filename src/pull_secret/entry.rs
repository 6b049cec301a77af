//! One login: as a docker config has it, and as it is tried.

use std::fmt;

use super::key::{index_key, mask_key};
use crate::model::credential::CredentialId;
use crate::redact::{Scrubber, Secret};

/// One user and password, or identity token, that may be tried.
#[derive(Clone, Eq, PartialEq)]
pub struct Credential {
    pub id: CredentialId,
    pub username: String,
    pub password: Secret,
    /// An OAuth2 refresh token; counts before the password.
    pub identity_token: Option<Secret>,
}

impl Credential {
    /// User and secret as containerd gets them; an identity token comes without a user.
    pub fn login(&self) -> (&str, &Secret) {
        match &self.identity_token {
            Some(token) => ("", token),
            None => (&self.username, &self.password),
        }
    }

    /// Keeps it out of whatever is washed from now on.
    pub fn hide_in(&self, scrub: &mut Scrubber) {
        scrub.hide_login(&self.username, &self.password);
        if let Some(token) = &self.identity_token {
            scrub.hide_login("", token);
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// One server key of a docker config and what stands under it.
#[derive(Clone)]
pub struct Entry {
    /// As written, without a user and password that may be in it.
    pub key: String,
    /// What the kubelet's index has for it; `None` when it is no URL.
    pub(super) index_key: Option<String>,
    pub username: String,
    pub password: Secret,
    pub identity_token: Option<Secret>,
}

impl Entry {
    pub fn new(
        key: &str,
        username: impl Into<String>,
        password: Secret,
        identity_token: Option<Secret>,
    ) -> Self {
        Self {
            key: mask_key(key),
            index_key: index_key(key),
            username: username.into(),
            password,
            identity_token,
        }
    }

    /// A pull with it would go out as if there were no credential (containerd, `ParseAuth`).
    pub(super) fn is_empty(&self) -> bool {
        self.identity_token.is_none() && (self.username.is_empty() || self.password.is_empty())
    }

    /// The same without user and password; whether there are any can still be told.
    pub(super) fn hollow(&self) -> Self {
        let mark = |text: &str| if text.is_empty() { "" } else { "-" };
        Self {
            key: self.key.clone(),
            index_key: self.index_key.clone(),
            username: mark(&self.username).to_owned(),
            password: Secret::new(mark(self.password.expose())),
            identity_token: self.identity_token.as_ref().map(|_| Secret::new("-")),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
