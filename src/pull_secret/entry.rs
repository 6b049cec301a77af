//! One login: as an entry of a docker config, and as a credential to try.

use std::fmt;

use super::key::{index_key, mask_key};
use crate::model::credential::CredentialId;
use crate::redact::{Scrubber, Secret};

/// A user with a password, or an identity token, that may be tried.
#[derive(Clone, Eq, PartialEq)]
pub struct Credential {
    /// Its source and server key, for reports.
    pub id: CredentialId,
    /// May be empty if there is an identity token.
    pub username: String,
    /// May be empty if there is an identity token.
    pub password: Secret,
    /// An OAuth2 refresh token; has precedence over the password.
    pub identity_token: Option<Secret>,
}

impl Credential {
    /// User and secret as containerd receives them; with an identity token the user is empty.
    pub fn login(&self) -> (&str, &Secret) {
        match &self.identity_token {
            Some(token) => ("", token),
            None => (&self.username, &self.password),
        }
    }

    /// Makes the scrubber hide it in all texts from now on.
    pub fn hide_in(&self, scrub: &Scrubber) {
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

/// An entry of a docker config's `auths`: a server key with its login.
#[derive(Clone)]
pub struct Entry {
    /// The key as written; a user, password or query in it is masked.
    pub key: String,
    /// The key in the kubelet's index; `None`: it is not a URL.
    pub(super) index_key: Option<String>,
    /// May be empty.
    pub username: String,
    /// May be empty.
    pub password: Secret,
    /// An OAuth2 refresh token (`identitytoken`); only files of the docker CLI have one.
    pub identity_token: Option<Secret>,
}

impl Entry {
    /// Masks the key, and computes its form in the kubelet's index.
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

    /// Whether containerd would pull with it as if there were no credential (containerd, `ParseAuth`).
    pub(super) fn is_empty(&self) -> bool {
        self.identity_token.is_none() && (self.username.is_empty() || self.password.is_empty())
    }

    /// A copy without user and password; it still shows whether they were empty.
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
