//! Reads kubeconfigs and the files that they name, in place of kube, whose reads have no bound.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use kube::client::AuthError;
use kube::config::{AuthInfo, ExecInteractiveMode, Kubeconfig};

use super::sources::{in_kubeconfig, with_sources};
use crate::files;
use crate::redact::Secret;

/// Bytes of a kubeconfig, or of a file that it names.
pub(super) const MAX_FILE: u64 = 4 << 20;

/// Reads one file. Relative paths in it are relative to its folder.
pub(super) fn read(path: &Path) -> Result<Kubeconfig, String> {
    let text = files::text(path, MAX_FILE)
        .map_err(|error| format!("it can't be read: {}", files::reason(&error)))?;
    parse(&text, path.parent().unwrap_or(Path::new("")))
}

/// Parses the text of one. Relative paths in it are relative to `folder`.
pub(super) fn parse(text: &str, folder: &Path) -> Result<Kubeconfig, String> {
    let mut config = Kubeconfig::from_yaml(text).map_err(|error| in_kubeconfig(&error, text))?;
    let absolute = |path: &mut Option<String>| {
        if let Some(path) = path {
            let joined = folder.join(&*path);
            *path = joined.to_string_lossy().into_owned();
        }
    };
    for named in &mut config.clusters {
        if let Some(cluster) = &mut named.cluster {
            absolute(&mut cluster.certificate_authority);
        }
    }
    for named in &mut config.auth_infos {
        if let Some(user) = &mut named.auth_info {
            absolute(&mut user.client_certificate);
            absolute(&mut user.client_key);
            absolute(&mut user.token_file);
            // As client-go does: a name without a slash is looked up in PATH.
            if let Some(exec) = &mut user.exec
                && exec
                    .command
                    .as_ref()
                    .is_some_and(|command| command.contains('/'))
            {
                absolute(&mut exec.command);
            }
        }
    }
    Ok(config)
}

/// The files of `KUBECONFIG`, merged; without any, that of the home folder.
pub(super) fn of_list(list: &OsStr) -> Result<Kubeconfig, String> {
    let mut paths = std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty());
    let Some(first) = paths.next() else {
        return of_home();
    };
    paths.try_fold(read(&first)?, |merged, path| {
        merged
            .merge(read(&path)?)
            .map_err(|error| with_sources(&error))
    })
}

/// `~/.kube/config`.
pub(super) fn of_home() -> Result<Kubeconfig, String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let path = home
        .ok_or("the home folder is unknown")?
        .join(".kube/config");
    read(&path).map_err(|reason| format!("{}: {reason}", path.display()))
}

/// Replaces the paths of the context that is used with the content of their files, and checks its token file, which kube
/// reads again and again.
pub(super) fn with_contents(
    mut config: Kubeconfig,
    context: Option<&str>,
) -> Result<Kubeconfig, String> {
    let Some(name) = context.or(config.current_context.as_deref()) else {
        return Ok(config);
    };
    let mut contexts = config.contexts.iter();
    let context = contexts.find(|named| named.name == name);
    let Some(context) = context.and_then(|named| named.context.clone()) else {
        return Ok(config);
    };
    let mut clusters = config.clusters.iter_mut();
    let cluster = clusters.find(|named| named.name == context.cluster);
    if let Some(cluster) = cluster.and_then(|named| named.cluster.as_mut()) {
        let data = &mut cluster.certificate_authority_data;
        *data = data.take().map_or_else(
            || {
                content(
                    "certificate-authority",
                    cluster.certificate_authority.as_deref(),
                )
            },
            |data| Ok(Some(data)),
        )?;
    }
    let mut users = config.auth_infos.iter_mut();
    let user = users.find(|named| Some(&named.name) == context.user.as_ref());
    if let Some(user) = user.and_then(|named| named.auth_info.as_mut()) {
        if user.client_certificate_data.is_none() {
            user.client_certificate_data =
                content("client-certificate", user.client_certificate.as_deref())?;
        }
        if user.client_key_data.is_none() {
            user.client_key_data =
                content("client-key", user.client_key.as_deref())?.map(Into::into);
        }
        if user.token.is_none() {
            content("tokenFile", user.token_file.as_deref())?;
        }
    }
    Ok(config)
}

/// The content of a file, in base64. The error names the key: its value may be what was meant for the file.
fn content(key: &str, path: Option<&str>) -> Result<Option<String>, String> {
    let Some(path) = path else { return Ok(None) };
    match files::read(Path::new(path), MAX_FILE) {
        Ok(bytes) => Ok(Some(STANDARD.encode(bytes))),
        Err(error) => Err(format!(
            "the file of {key} can't be read: {}",
            files::reason(&error)
        )),
    }
}

/// Makes it safe to be used: kube would panic at a token that no header can have, and an exec plugin that is interactive
/// prints into this program's log. It is interactive on a terminal only.
pub(super) fn checked(mut file: Kubeconfig) -> Result<Kubeconfig, AuthError> {
    let users = file.auth_infos.iter();
    let mut tokens = users.filter_map(|user| token(user.auth_info.as_ref()?));
    if let Some(wrong) = tokens.find_map(|token| HeaderValue::from_str(token.expose()).err()) {
        return Err(AuthError::InvalidBearerToken(wrong));
    }
    let is_on_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    let users = file.auth_infos.iter_mut();
    let plugins = users.filter_map(|user| user.auth_info.as_mut()?.exec.as_mut());
    for plugin in plugins.filter(|_| !is_on_terminal) {
        plugin.interactive_mode = Some(ExecInteractiveMode::Never);
    }
    Ok(file)
}

/// The token of a user. kube's type of it shows it to serde alone.
fn token(user: &AuthInfo) -> Option<Secret> {
    match serde_json::to_value(user).ok()?.get_mut("token")?.take() {
        serde_json::Value::String(token) => Some(Secret::new(token)),
        _ => None,
    }
}
