//! The trusted roots in force: those that a Go program on this machine would use, plus those that the user names.
//!
//! The paths and their order are those of Go's crypto/x509 (root_unix.go, root_linux.go), because containerd is a Go
//! program: one bundle, and every folder. A machine without any bundle is an observation here, not an error: it is one
//! of the reasons why pulls fail.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::files;
use crate::model::connect::Roots;
use crate::model::fault::instant;
use crate::model::text;
use crate::net::host_root::{self, shown};
use crate::trust::{Certificate, Pool};

/// Why a `--ca-file` can't be used. The user named it, so no check is made without it.
#[derive(Debug, Error)]
pub enum RootsError {
    /// It can't be opened or read.
    #[error("can't read --ca-file {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system reports.
        source: io::Error,
    },
    /// It has more than 16 MiB.
    #[error("--ca-file {} is larger than {} MiB; give a file of PEM certificates", path.display(), MAX_FILE >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It has no PEM block of a certificate.
    #[error(
        "--ca-file {} contains no PEM certificate (-----BEGIN CERTIFICATE-----); \
         give the CA's certificate in PEM form", path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is a certificate in binary form.
    #[error(
        "--ca-file {} is in DER form; convert it: \
         openssl x509 -inform der -in FILE -out ca.pem", path.display()
    )]
    Der {
        /// The file.
        path: PathBuf,
    },
    /// A PEM block is damaged.
    #[error(
        "entry {entry} of --ca-file {} is not well-formed PEM: {reason}; \
         copy the certificate again, with its BEGIN and END lines", path.display()
    )]
    Pem {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        entry: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A PEM block is not a certificate that Go can parse.
    #[error(
        "entry {entry} of --ca-file {} is not an X.509 certificate: {reason}; \
         remove it, or replace it with the CA's certificate", path.display()
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        entry: usize,
        /// Why it can't be parsed.
        reason: String,
    },
}

/// The node's own roots, at the paths where they are mounted.
#[derive(Clone, Copy, Debug)]
pub struct NodeBundle<'a> {
    /// PEM files, or folders of them.
    pub paths: &'a [PathBuf],
    /// Where the node's `/` is mounted; `None` if links are resolved on this machine.
    pub root: Option<&'a Path>,
}

/// The roots in force.
#[derive(Debug)]
pub struct Loaded {
    /// The trusted roots.
    pub store: Pool,
    /// Their sources and problems, as evidence.
    pub roots: Roots,
    /// `Ok` if the node's roots are in use, otherwise why not; `None` if none were named.
    pub node: Option<Result<(), String>>,
    /// The files of the bundle: the roots without those of `--ca-file`.
    pub bundle: Vec<PathBuf>,
}

impl Loaded {
    /// Records messages about bundle files that changed after the runtime had read them.
    pub fn note_changed(&mut self, changed: Vec<String>, ca_files: &[PathBuf]) {
        if changed.is_empty() {
            return;
        }
        let named: Vec<String> = ca_files.iter().map(|path| shown(path)).collect();
        let of_bundle = self.roots.sources.iter();
        let of_bundle = of_bundle.filter(|source| !named.contains(source));
        self.store
            .note_changed(of_bundle.map(|source| source.as_str().into()));
        self.roots.changed = changed;
    }
}

/// Where a Go program looks for roots.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RootsPlace {
    /// The first file that can be read is used.
    files: Vec<PathBuf>,
    /// All folders are used.
    folders: Vec<PathBuf>,
    /// Whether the environment names them: then it is a problem if they do not exist.
    files_named: bool,
    folders_named: bool,
}

impl Default for RootsPlace {
    fn default() -> Self {
        Self::of(|_| None::<OsString>)
    }
}

impl RootsPlace {
    /// The files and folders for an environment: SSL_CERT_FILE replaces Go's list of files, SSL_CERT_DIR its list of
    /// folders, independently. An empty value counts as unset.
    pub fn of<T: Into<OsString>>(variable: impl Fn(&str) -> Option<T>) -> Self {
        let named = |name| {
            variable(name)
                .map(Into::into)
                .filter(|value: &OsString| !value.is_empty())
        };
        let usual = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let (file, folders) = (named("SSL_CERT_FILE"), named("SSL_CERT_DIR"));
        Self {
            files_named: file.is_some(),
            folders_named: folders.is_some(),
            files: file.map_or_else(|| usual(&BUNDLES), |file| vec![file.into()]),
            folders: folders.map_or_else(
                || usual(&FOLDERS),
                |folders| std::env::split_paths(&folders).collect(),
            ),
        }
    }

    /// The paths that the environment names: the file, or else all folders; empty if it names neither.
    pub fn named(&self) -> &[PathBuf] {
        if self.files_named {
            &self.files
        } else if self.folders_named {
            &self.folders
        } else {
            &[]
        }
    }

    /// The file that is read.
    fn bundle(&self) -> Option<&PathBuf> {
        let mut files = self.files.iter();
        files.find(|file| self.files_named || is_file(file))
    }
}

/// Loads the node's roots if they can be read, otherwise those of this machine in `places`; and every certificate of
/// `ca_files`.
///
/// # Errors
/// If one of `ca_files` can't be used. Problems with this machine's own bundle, or the node's, are recorded in
/// `problems` instead.
pub fn load(
    bundle: Option<NodeBundle<'_>>,
    places: &RootsPlace,
    ca_files: &[PathBuf],
    now: Timestamp,
) -> Result<Loaded, RootsError> {
    let (read, node) = match bundle.map(read_bundle) {
        Some(Ok(read)) => (read, Some(Ok(()))),
        Some(Err(reason)) => (read_places(places), Some(Err(reason))),
        None => (read_places(places), None),
    };
    let bundle = read.files.clone();
    let (store, mut roots) = finish(read, ca_files, now)?;
    if let Some(Err(reason)) = &node {
        roots
            .problems
            .push(format!("the node's roots are not in use: {reason}"));
    }
    Ok(Loaded {
        store,
        roots,
        node,
        bundle,
    })
}

/// Reads files, and all files of folders; links are resolved as on the node. An error if there is no certificate in
/// any of them.
fn read_bundle(bundle: NodeBundle<'_>) -> Result<Read, String> {
    let mut read = Read::default();
    let mut lost = Vec::new();
    for path in bundle.paths {
        if let Err(reason) = read_path(path, bundle.root, &mut read, &mut lost) {
            lost.push(reason);
        }
    }
    lost.sort();
    if read.found.is_empty() {
        return Err(lost.into_iter().next().unwrap_or_default());
    }
    let listed = lost.iter().take(MAX_LISTED);
    read.roots
        .problems
        .extend(listed.map(|lost| text::printable(lost)));
    Ok(read)
}

/// Adds one file, or all files of a folder; `lost` gets those that can't be used.
fn read_path(
    path: &Path,
    root: Option<&Path>,
    read: &mut Read,
    lost: &mut Vec<String>,
) -> Result<(), String> {
    let resolve = |path: &Path| host_root::resolve(root, path).map_err(|e| e.to_string());
    let resolved = resolve(path)?;
    let unreadable = |error: io::Error| {
        format!(
            "{} can't be read: {}",
            shown(&resolved),
            files::reason(&error)
        )
    };
    let mut paths = BTreeSet::new();
    if is_folder(&resolved) {
        for entry in files::list(&resolved).map_err(unreadable)? {
            match resolve(&entry.path) {
                // The same file is in the folder by name and by hash.
                Ok(file) if is_file(&file) => {
                    paths.insert(file);
                }
                Ok(_) => {}
                Err(reason) => lost.push(reason),
            }
        }
    } else {
        paths.insert(resolved.clone());
    }
    let source: Arc<str> = format!("the node's {}", shown(path)).into();
    let before = (read.found.len(), lost.len());
    let mut left = MAX_FILE;
    for file in &paths {
        read.add(certificates_in(file, &mut left, lost), &source);
    }
    read.files.extend(paths);
    if read.found.len() > before.0 {
        read.roots.sources.push(source.to_string());
    } else if lost.len() == before.1 {
        return Err(format!("{} contains no certificate", shown(&resolved)));
    }
    Ok(())
}

/// Adds the certificates of `ca_files` (`ca` of hosts.toml) to the roots. As in Go's `AppendCertsFromPEM`, content that
/// is not a certificate is ignored if the file has at least one certificate.
///
/// # Errors
/// If a file can't be read, is too large, or has no certificate.
pub fn extend(
    store: &Pool,
    roots: &Roots,
    ca_files: &[PathBuf],
) -> Result<(Pool, Roots), RootsError> {
    let (mut store, mut roots) = (store.clone(), roots.clone());
    for path in ca_files {
        let content = read_file(path)?;
        let source: Arc<str> = shown(path).into();
        let read = CertificateDer::pem_slice_iter(&content).filter_map(Result::ok);
        let added = read.filter(|der| store.add(der, &source).is_ok()).count();
        if added == 0 {
            return Err(nothing_in(path, &content));
        }
        roots.sources.push(shown(path));
    }
    roots.certificates = store.len();
    Ok((store, roots))
}

/// Certificates that were found, before they are added to a pool.
#[derive(Debug, Default)]
struct Read {
    roots: Roots,
    /// Certificates, and the files or folders that they were read from.
    found: Vec<Found>,
    /// The files of the bundle.
    files: Vec<PathBuf>,
}

impl Read {
    /// Adds one file, or the files of one folder, of this machine.
    fn note(&mut self, path: &Path, certificates: Vec<CertificateDer<'static>>, lost: &[String]) {
        let problems = lost.iter().take(MAX_LISTED);
        let problems = problems.map(|problem| text::printable(problem));
        self.roots.problems.extend(problems);
        let shown = shown(path);
        if !certificates.is_empty() {
            self.roots.sources.push(shown.clone());
        }
        self.add(certificates, &shown.into());
    }

    fn add(&mut self, certificates: Vec<CertificateDer<'static>>, source: &Arc<str>) {
        let found = certificates.into_iter();
        self.found.extend(found.map(|der| (der, source.clone())));
    }
}

type Found = (CertificateDer<'static>, Arc<str>);

fn read_places(places: &RootsPlace) -> Read {
    let bundle = places.bundle();
    let mut read = Read {
        files: bundle.into_iter().cloned().collect(),
        ..Read::default()
    };
    if let Some(file) = bundle {
        let mut lost = Vec::new();
        let certificates = certificates_in(file, &mut MAX_FILE.clone(), &mut lost);
        read.note(file, certificates, &lost);
    }
    for folder in &places.folders {
        if places.folders_named || is_folder(folder) {
            let mut lost = Vec::new();
            let certificates = certificates_of(folder, &mut lost);
            read.note(folder, certificates, &lost);
        }
    }
    if read.found.is_empty() && read.roots.problems.is_empty() {
        read.roots.problems.push(format!(
            "no CA bundle was found in {}",
            text::joined(places.files.iter().chain(&places.folders).map(|p| shown(p)))
        ));
    }
    read
}

/// Adds everything that was found to a pool, with `ca_files`.
fn finish(read: Read, ca_files: &[PathBuf], now: Timestamp) -> Result<(Pool, Roots), RootsError> {
    let (mut roots, mut found) = (read.roots, read.found);
    for path in ca_files {
        found.extend(read_ca_file(path)?);
        roots.sources.push(shown(path));
    }
    let mut pool = Pool::default();
    let mut unusable = 0;
    let mut outdated = Vec::new();
    for (der, source) in found {
        let known = pool.len();
        match pool.add(&der, &source) {
            Err(_) => unusable += 1,
            // They stay: Go finds them, and rejects chains that end at them.
            Ok(()) if pool.len() > known => {
                let added = pool.roots().last();
                if added.is_some_and(|root| !root.certificate.is_valid_at(now.as_second())) {
                    outdated.extend(outdated_name(&der, now));
                }
            }
            Ok(()) => {}
        }
    }
    if unusable > 0 {
        roots.problems.push(format!(
            "{unusable} certificates could not be parsed as roots"
        ));
    }
    if !outdated.is_empty() {
        let more = outdated.len().saturating_sub(MAX_LISTED);
        outdated.truncate(MAX_LISTED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        roots.problems.push(format!(
            "roots that are expired or not yet valid by the local clock, so nothing is trusted through them: \
             {}{more}",
            outdated.join("; ")
        ));
    }
    roots.certificates = pool.len();
    Ok((pool, roots))
}

fn is_file(path: &Path) -> bool {
    matches!(files::kind(path), Ok(files::Kind::File))
}

fn is_folder(path: &Path) -> bool {
    matches!(files::kind(path), Ok(files::Kind::Folder))
}

/// The certificates of a file. Content that is none is ignored; `lost` gets what can't be read. `left` is how many bytes
/// may still be read.
fn certificates_in(
    file: &Path,
    left: &mut u64,
    lost: &mut Vec<String>,
) -> Vec<CertificateDer<'static>> {
    let mut note = |reason: String| lost.push(format!("{}: {reason}", shown(file)));
    let content = match files::read(file, *left) {
        Ok(content) => content,
        Err(error) => {
            note(format!("it can't be read: {}", files::reason(&error)));
            return Vec::new();
        }
    };
    *left -= content.len() as u64;
    let mut certificates = Vec::new();
    for item in CertificateDer::pem_slice_iter(&content) {
        match item {
            Ok(certificate) => certificates.push(certificate),
            Err(error) => note(pem_reason(&error)),
        }
    }
    certificates
}

/// The certificates of a folder's files. A link to nothing is ignored, and a file with several links is read once.
fn certificates_of(folder: &Path, lost: &mut Vec<String>) -> Vec<CertificateDer<'static>> {
    let (owned, gathered) = (folder.to_owned(), Arc::new(Mutex::default()));
    let found = Arc::clone(&gathered);
    // There are hundreds: one use of the file system for all.
    let whole = files::within(&folder.join("*"), move || {
        let links = files::list_files(&owned)?;
        let resolved = links
            .iter()
            .filter_map(|link| host_root::resolve(None, link).ok());
        let paths: BTreeSet<PathBuf> = resolved.collect();
        let mut left = MAX_FILE;
        for path in paths {
            let mut lost = Vec::new();
            let certificates = certificates_in(&path, &mut left, &mut lost);
            lock(&found).push((certificates, lost));
        }
        Ok(())
    });
    if let Err(error) = whole {
        let reason = files::reason(&error);
        lost.push(format!("{}: it can't be read: {reason}", shown(folder)));
    }
    let gathered = std::mem::take(&mut *lock(&gathered));
    let of_file = |(certificates, reasons)| {
        lost.extend::<Vec<String>>(reasons);
        certificates
    };
    gathered.into_iter().flat_map(of_file).collect()
}

type OfFile = (Vec<CertificateDer<'static>>, Vec<String>);

fn lock(gathered: &Mutex<Vec<OfFile>>) -> MutexGuard<'_, Vec<OfFile>> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_file(path: &Path) -> Result<Vec<u8>, RootsError> {
    let read = files::read(path, MAX_FILE);
    let path = path.to_owned();
    read.map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => RootsError::TooLarge { path },
        _ => RootsError::Unreadable { path, source },
    })
}

/// The error for a file without certificates.
fn nothing_in(path: &Path, content: &[u8]) -> RootsError {
    let path = path.to_owned();
    if X509Certificate::from_der(content).is_ok() {
        RootsError::Der { path }
    } else {
        RootsError::Empty { path }
    }
}

fn read_ca_file(path: &Path) -> Result<Vec<Found>, RootsError> {
    let content = read_file(path)?;
    let source: Arc<str> = shown(path).into();
    let mut certificates = Vec::new();
    for (index, item) in CertificateDer::pem_slice_iter(&content).enumerate() {
        let entry = index + 1;
        let der = item.map_err(|error| RootsError::Pem {
            path: path.to_owned(),
            entry,
            reason: pem_reason(&error),
        })?;
        Certificate::parse(&der).map_err(|reason| RootsError::Certificate {
            path: path.to_owned(),
            entry,
            reason: reason.to_owned(),
        })?;
        certificates.push((der, source.clone()));
    }
    if certificates.is_empty() {
        return Err(nothing_in(path, &content));
    }
    Ok(certificates)
}

fn pem_reason(error: &pem::Error) -> String {
    // The library's own message shows lines of the file as lists of numbers.
    match error {
        pem::Error::MissingSectionEnd { .. } => "its END line is missing".to_owned(),
        pem::Error::IllegalSectionStart { line } => format!(
            "the line {:?} does not start a section",
            text::clean(&String::from_utf8_lossy(line), 60)
        ),
        pem::Error::Base64Decode(_) => "the text between BEGIN and END is not base64".to_owned(),
        other => text::printable(&other.to_string()),
    }
}

/// The name of a certificate that is not valid now, with the date; `None` if it is valid, or can't be parsed.
fn outdated_name(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let (from, to) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let (word, date) = match now.as_second() {
        now if now < from => ("from", from),
        now if now > to => ("until", to),
        _ => return None,
    };
    let date = Timestamp::from_second(date).ok()?;
    let text = format!("{} ({word} {})", parsed.subject(), instant(date));
    Some(text::printable(&text))
}

/// A root that the major programs trust (Mozilla's list): bundles have it, whatever an owner has added.
pub(super) fn is_public(der: &[u8]) -> bool {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .any(|root| root.as_ref() == der)
}

/// `certFiles` of Go's crypto/x509 on Linux: Debian, Fedora and RHEL 6, openSUSE, OpenELEC,
/// CentOS and RHEL 7, Alpine.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// `certDirectories` of the same source.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Bytes of a file, and of all files of a folder. The bundles of the major distributions are 0.3 MB.
const MAX_FILE: u64 = 16 << 20;

/// Bound for the problems of one source, and the roots of one list, that are shown.
const MAX_LISTED: usize = 5;

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn ca(name: &str, not_after_year: i32) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(not_after_year, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    /// A machine without any bundle, and a node whose bundle is behind links.
    fn node() -> (tempfile::TempDir, RootsPlace) {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["etc/ssl/certs", "etc/pki/pem", "usr/share/ca"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("etc/pki/pem/bundle.pem"), ca("of the node", 2100).pem()).unwrap();
        fs::write(at("usr/share/ca/one.crt"), ca("another", 2100).pem()).unwrap();
        symlink("/etc/pki/pem/bundle.pem", at("etc/ssl/bundle.crt")).unwrap();
        symlink("/usr/share/ca/one.crt", at("etc/ssl/certs/one.pem")).unwrap();
        symlink("one.pem", at("etc/ssl/certs/abcdef.0")).unwrap();
        symlink("/usr/share/gone.crt", at("etc/ssl/certs/gone.pem")).unwrap();
        fs::create_dir(at("etc/ssl/certs/java")).unwrap();
        let places = RootsPlace {
            files: vec![at("image.pem")],
            folders: Vec::new(),
            files_named: false,
            folders_named: false,
        };
        fs::write(
            at("image.pem"),
            [ca("a", 2100).pem(), ca("b", 2100).pem()].concat(),
        )
        .unwrap();
        (root, places)
    }

    #[test]
    fn the_nodes_roots_stand_in_place_of_those_of_this_image() {
        let (root, places) = node();
        let load = |path: &str, host_root: Option<&Path>, ca_files: &[PathBuf]| {
            let paths: Vec<PathBuf> = path.split(':').map(|path| root.path().join(path)).collect();
            let bundle = NodeBundle {
                paths: &paths,
                root: host_root,
            };
            load(Some(bundle), &places, ca_files, Timestamp::now()).unwrap()
        };
        let more = root.path().join("image.pem");
        for (path, ca_files, certificates, problems) in [
            ("etc/pki/pem/bundle.pem", vec![], 1, 0),
            ("etc/ssl/bundle.crt", vec![], 1, 0),
            ("etc/ssl/bundle.crt", vec![more], 3, 0),
            ("etc/ssl/certs", vec![], 1, 1),
            // All that SSL_CERT_DIR names count; one of them may be absent.
            ("etc/pki/pem:etc/ssl/certs", vec![], 2, 1),
            ("etc/ssl/gone:etc/pki/pem", vec![], 1, 1),
        ] {
            let loaded = load(path, Some(root.path()), &ca_files);
            assert_eq!(loaded.node, Some(Ok(())), "{path}");
            assert_eq!(loaded.store.len(), certificates, "{path}");
            let roots = &loaded.roots;
            assert_eq!(roots.problems.len(), problems, "{roots:?}");
            assert!(roots.sources[0].starts_with("the node's "), "{roots:?}");
        }
        // None are named: the image's own roots are used.
        let own = super::load(None, &places, &[], Timestamp::now()).unwrap();
        assert_eq!((own.node, own.store.len()), (None, 2));
    }

    #[test]
    fn roots_of_the_node_that_can_t_be_had_are_reported_and_replace_nothing() {
        let (root, places) = node();
        fs::write(root.path().join("empty.pem"), "no certificate\n").unwrap();
        for (path, host_root, part) in [
            ("etc/gone.pem", true, "etc/gone.pem does not exist"),
            (
                "etc/ssl/certs/gone.pem",
                true,
                "a link to /usr/share/gone.crt",
            ),
            ("etc/ssl/bundle.crt", false, "set network.host_root"),
            ("empty.pem", true, "empty.pem"),
        ] {
            let paths = [root.path().join(path)];
            let bundle = NodeBundle {
                paths: &paths,
                root: host_root.then_some(root.path()),
            };
            let loaded = load(Some(bundle), &places, &[], Timestamp::now()).unwrap();
            let reason = loaded.node.unwrap().unwrap_err();
            assert!(reason.contains(part), "{reason}");
            assert_eq!(loaded.store.len(), 2, "{part}");
            assert!(
                loaded.roots.problems[0].contains(part),
                "{:?}",
                loaded.roots
            );
        }
    }

    fn load_from(
        places: &RootsPlace,
        ca_files: &[PathBuf],
        now: Timestamp,
    ) -> Result<(Pool, Roots), RootsError> {
        let loaded = load(None, places, ca_files, now)?;
        Ok((loaded.store, loaded.roots))
    }

    fn places(files: &[PathBuf], folders: &[PathBuf]) -> RootsPlace {
        RootsPlace {
            files: files.to_vec(),
            folders: folders.to_vec(),
            files_named: false,
            folders_named: false,
        }
    }

    fn now() -> Timestamp {
        "2026-11-20T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_environment_replaces_files_and_folders_each_for_itself() {
        let place = |file: Option<&str>, folders: Option<&str>| {
            RootsPlace::of(|name| match name {
                "SSL_CERT_FILE" => file,
                _ => folders,
            })
        };
        let plain = place(None, None);
        assert_eq!(plain.files.len(), BUNDLES.len());
        assert_eq!(place(Some(""), Some("")), plain);
        let file = place(Some("/a.pem"), None);
        assert_eq!(file.files, [PathBuf::from("/a.pem")]);
        assert_eq!(file.folders, plain.folders);
        let folders = place(None, Some("/a:/b"));
        assert_eq!(folders.files, plain.files);
        assert_eq!(folders.folders, [PathBuf::from("/a"), PathBuf::from("/b")]);
    }

    #[test]
    fn one_bundle_every_folder_and_the_files_named_count_once_each() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (one, two, three) = (ca("one", 2040), ca("two", 2040), ca("three", 2040));
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("first.pem"), one.pem()).unwrap();
        fs::write(at("second.pem"), ca("not taken", 2040).pem()).unwrap();
        fs::write(at("folder/one.crt"), one.pem()).unwrap();
        fs::write(at("folder/two.crt"), two.pem()).unwrap();
        fs::write(at("mine.pem"), format!("{}{}", two.pem(), three.pem())).unwrap();
        let places = places(
            &[at("missing.pem"), at("first.pem"), at("second.pem")],
            &[at("folder"), at("missing")],
        );
        let (store, roots) = load_from(&places, &[at("mine.pem")], now()).unwrap();
        assert_eq!((store.len(), roots.certificates), (3, 3));
        let expected = ["first.pem", "folder", "mine.pem"].map(|n| shown(&at(n)));
        assert_eq!(roots.sources, expected);
        assert_eq!(roots.problems, Vec::<String>::new());
    }

    #[test]
    fn no_bundle_at_all_is_an_observation() {
        let nowhere = places(&["/nonexistent/ca.pem".into()], &["/nonexistent".into()]);
        let (store, roots) = load_from(&nowhere, &[], now()).unwrap();
        assert!(store.is_empty() && roots.sources.is_empty());
        assert_eq!(roots.certificates, 0);
        assert!(
            roots.problems[0].contains("/nonexistent/ca.pem"),
            "{roots:?}"
        );

        let named = RootsPlace {
            files_named: true,
            ..nowhere
        };
        let (_, roots) = load_from(&named, &[], now()).unwrap();
        assert_eq!(roots.certificates, 0);
        assert!(
            roots.problems[0].contains("/nonexistent/ca.pem"),
            "{roots:?}"
        );
    }

    #[test]
    fn an_expired_root_is_reported_with_its_date() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle.pem");
        let pem = format!(
            "{}{}",
            ca("Old Root", 2021).pem(),
            ca("New Root", 2040).pem()
        );
        fs::write(&bundle, pem).unwrap();
        let (store, roots) = load_from(&places(&[bundle], &[]), &[], now()).unwrap();
        assert_eq!(store.len(), 2);
        assert!(
            roots.problems[0].contains("Old Root (until 2021-01-01"),
            "{roots:?}"
        );
        assert!(!roots.problems[0].contains("New Root"), "{roots:?}");
    }

    #[test]
    fn a_ca_file_that_is_of_no_use_is_named_with_its_entry_and_the_fix() {
        let dir = tempfile::tempdir().unwrap();
        let good = ca("good", 2040);
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        let not_one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = KeyPair::generate().unwrap().serialize_pem();
        for (name, content, says) in [
            ("missing.pem", None, "check the path"),
            ("empty.pem", Some(Vec::new()), "no PEM certificate"),
            ("key.pem", Some(key.into_bytes()), "no PEM certificate"),
            (
                "ca.der",
                Some(good.der().to_vec()),
                "openssl x509 -inform der",
            ),
            (
                "base64.pem",
                Some(format!("{}{broken}", good.pem()).into_bytes()),
                "entry 2",
            ),
            (
                "other.pem",
                Some(format!("{}{not_one}", good.pem()).into_bytes()),
                "entry 2",
            ),
            (
                "cut.pem",
                Some(good.pem().as_bytes()[..200].to_vec()),
                "END line is missing",
            ),
        ] {
            let path = dir.path().join(name);
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            let error = load_from(&places(&[], &[]), std::slice::from_ref(&path), now())
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{name}: {error}");
            assert!(error.contains(path.to_str().unwrap()), "{name}: {error}");
        }
    }

    #[test]
    fn this_machines_roots_load_without_error() {
        let Loaded { store, roots, .. } = load(None, &RootsPlace::default(), &[], now()).unwrap();
        assert_eq!(store.len(), roots.certificates);
        assert_eq!(
            roots.certificates == 0,
            roots.sources.is_empty(),
            "{roots:?}"
        );
    }

    #[test]
    fn of_a_changed_bundle_public_roots_and_named_files_are_certain() {
        let dir = tempfile::tempdir().unwrap();
        let (own, named) = (ca("own", 2040), ca("named", 2040));
        let bundle = dir.path().join("bundle.pem");
        let file = dir.path().join("named.pem");
        let public = &webpki_root_certs::TLS_SERVER_ROOT_CERTS[0];
        let public_pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, public)
        );
        fs::write(&bundle, format!("{}{}{public_pem}", own.pem(), named.pem())).unwrap();
        fs::write(&file, named.pem()).unwrap();
        let place = places(std::slice::from_ref(&bundle), &[dir.path().join("none")]);
        let ca_files = [file];
        let mut loaded = load(None, &place, &ca_files, now()).unwrap();
        assert_eq!(loaded.bundle, [bundle]);
        assert!(loaded.store.unchanged(is_public).is_none());
        loaded.note_changed(Vec::new(), &ca_files);
        assert!(loaded.store.unchanged(is_public).is_none());
        loaded.note_changed(vec!["it was changed".to_owned()], &ca_files);
        assert_eq!(loaded.store.unchanged(is_public).unwrap().len(), 1);
        assert_eq!(loaded.roots.changed, ["it was changed"]);
        // `ca` of hosts.toml is read at each pull.
        let (extended, _) = extend(&loaded.store, &loaded.roots, &ca_files).unwrap();
        assert_eq!(extended.len(), 3);
        assert_eq!(extended.unchanged(is_public).unwrap().len(), 2);
    }
}
