//! The trusted roots: those of this place, and the authorities given by `--ca-file`.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::model::evidence::Roots;

/// A `--ca-file` that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("--ca-file {}: can't be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: String },
    #[error(
        "--ca-file {}: certificate {entry} is not valid ({error}); a PEM file with '-----BEGIN CERTIFICATE-----' is wanted",
        path.display()
    )]
    Invalid {
        path: PathBuf,
        entry: usize,
        error: String,
    },
    #[error("--ca-file {}: holds no certificate; a PEM file with '-----BEGIN CERTIFICATE-----' is wanted", path.display())]
    Empty { path: PathBuf },
}

/// Loads the system's roots and adds those of the files, as containerd does with `ca`.
///
/// A system without any bundle is no error: the evidence says so, and no certificate is then called
/// unknown.
pub fn load(ca_files: &[PathBuf]) -> Result<(RootCertStore, Roots), RootsError> {
    let mut store = RootCertStore::empty();
    let mut roots = Roots::default();
    let system = rustls_native_certs::load_native_certs();
    roots
        .problems
        .extend(system.errors.iter().map(ToString::to_string));
    let (added, _) = store.add_parsable_certificates(system.certs);
    if added > 0 {
        roots.sources.push(system_source());
    } else {
        roots
            .problems
            .push(format!("no certificate in {}", system_source()));
    }
    for path in ca_files {
        add_file(&mut store, path)?;
        roots.sources.push(path.display().to_string());
    }
    roots.certificates = store.len();
    Ok((store, roots))
}

/// Where rustls-native-certs looks: SSL_CERT_FILE and SSL_CERT_DIR, else the platform's places.
fn system_source() -> String {
    let named: Vec<String> = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .collect();
    if named.is_empty() {
        "the system's trust store".to_owned()
    } else {
        named.join(", ")
    }
}

fn add_file(store: &mut RootCertStore, path: &Path) -> Result<(), RootsError> {
    let path_buf = || path.to_owned();
    let unreadable = |error: String| RootsError::Unreadable {
        path: path_buf(),
        error,
    };
    let pem = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        count += 1;
        let invalid = |error: String| RootsError::Invalid {
            path: path_buf(),
            entry: count,
            error,
        };
        let certificate = certificate.map_err(|e| invalid(e.to_string()))?;
        store.add(certificate).map_err(|e| invalid(e.to_string()))?;
    }
    if count == 0 {
        Err(RootsError::Empty { path: path_buf() })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_ca_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let error = |path: &Path| load(&[path.to_owned()]).unwrap_err().to_string();
        assert!(error(&path).contains("can't be read"));
        std::fs::write(&path, "no certificate\n").unwrap();
        assert!(error(&path).contains("holds no certificate"));
        std::fs::write(
            &path,
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let text = error(&path);
        assert!(
            text.contains("certificate 1 is not valid") && text.contains("ca.pem"),
            "{text}"
        );
    }
}
