//! How the containerd binary was built, as far as its lookups of names depend on it (Go, `debug/buildinfo`).

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::files;
use crate::model::resolver::RuntimeResolver;

/// What the node's containerd is linked with. `root` is where the node's `/` is mounted; without it, the binary of this
/// machine counts if containerd runs here. Everything is unknown if there is no binary, or more than one.
pub fn resolver(root: Option<&Path>) -> RuntimeResolver {
    let here = super::start::started_here().map(|_| Path::new("/"));
    let Some(root) = root.or(here) else {
        return RuntimeResolver::default();
    };
    let mut found = BINARIES.iter().filter_map(|path| {
        let path = root.join(path);
        let binary = path.clone();
        files::within(&path, move || Ok(of_binary(files::open(&binary)?))).ok()
    });
    match (found.next(), found.next()) {
        (Some(build), None) => build.unwrap_or_default(),
        _ => RuntimeResolver::default(),
    }
}

const BINARIES: [&str; 2] = ["usr/bin/containerd", "usr/local/bin/containerd"];

/// `None`: there is no build information, or it is that of Go 1.17 and before.
fn of_binary(mut file: impl Read + Seek) -> Option<RuntimeResolver> {
    let at = find(&mut file)?;
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    // Flag 2: the strings follow the header of 32 bytes, each after its length.
    if bytes.get(15)? & 2 == 0 {
        return None;
    }
    let (version, rest) = string(bytes.get(32..)?)?;
    let (module, _) = string(rest)?;
    let module = String::from_utf8_lossy(module);
    let setting = |name: &str| {
        let of = |line: &str| {
            line.strip_prefix("build\t")?
                .strip_prefix(name)?
                .strip_prefix('=')
                .map(str::to_owned)
        };
        module.lines().find_map(of)
    };
    let version = String::from_utf8_lossy(version);
    let minor = version
        .strip_prefix("go1.")?
        .split(|c: char| !c.is_ascii_digit())
        .next()?;
    let tags = setting("-tags").unwrap_or_default();
    let has = |tag: &str| tags.trim_matches('"').split(',').any(|one| one == tag);
    let netdns = if has("netgo") {
        Some("go")
    } else if has("netcgo") {
        Some("cgo")
    } else {
        None
    };
    Some(RuntimeResolver {
        cgo: setting("CGO_ENABLED").map(|value| value == "1"),
        go_1_20: Some(minor.parse::<u32>().ok()? >= 20),
        netdns: netdns.map(str::to_owned),
        variables: Vec::new(),
    })
}

/// Where the build information begins.
fn find(file: &mut impl Read) -> Option<u64> {
    let (mut window, mut offset) = (Vec::new(), 0);
    while offset < LARGEST {
        let kept = window.len();
        if file.take(CHUNK).read_to_end(&mut window).ok()? == 0 {
            return None;
        }
        if let Some(at) = window.windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
            return Some(offset - kept as u64 + at as u64);
        }
        offset += (window.len() - kept) as u64;
        window.drain(..window.len() - MAGIC.len().min(window.len()));
    }
    None
}

/// A string after its length (varint).
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut shift) = (0_usize, 0);
    for (index, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let rest = &bytes[index + 1..];
            return (rest.len() >= length).then(|| rest.split_at(length));
        }
    }
    None
}

const MAGIC: &[u8] = b"\xff Go buildinf:";
const CHUNK: u64 = 1 << 20;
/// Of a binary that is searched.
const LARGEST: u64 = 256 << 20;
/// Of build information; containerd's has some 10 kB.
const MOST: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A binary with its build information after so many other bytes.
    fn binary(before: usize, version: &str, module: &str) -> Vec<u8> {
        let mut bytes = vec![b'\xff'; before];
        bytes.extend(MAGIC);
        bytes.extend([8, 2]);
        bytes.extend([0; 16]);
        for text in [version, module] {
            let length = text.len();
            bytes.extend([
                u8::try_from(length & 0x7f).unwrap() | 0x80,
                u8::try_from(length >> 7).unwrap(),
            ]);
            bytes.extend(text.bytes());
        }
        bytes.extend([0; 100]);
        bytes
    }

    fn shown(bytes: Vec<u8>) -> Option<String> {
        let build = of_binary(Cursor::new(bytes))?;
        Some(format!(
            "{:?} {:?} {:?}",
            build.cgo, build.go_1_20, build.netdns
        ))
    }

    #[test]
    fn the_settings_of_a_build_are_read_wherever_they_are() {
        let module = |lines: &str| {
            format!("path\tgithub.com/containerd/containerd\n{lines}build\tGOOS=linux\n")
        };
        let chunk = usize::try_from(CHUNK).unwrap();
        for before in [0, 16, chunk - 5, chunk, 2 * chunk + 7] {
            for (version, lines, want) in [
                (
                    "go1.19.8",
                    "build\tCGO_ENABLED=1\n",
                    "Some(true) Some(false) None",
                ),
                (
                    "go1.24.4 X:x",
                    "build\tCGO_ENABLED=0\n",
                    "Some(false) Some(true) None",
                ),
                (
                    "go1.20",
                    "build\t-tags=\"osusergo,netgo\"\nbuild\tCGO_ENABLED=1\n",
                    "Some(true) Some(true) Some(\"go\")",
                ),
                ("go1.21", "", "None Some(true) None"),
            ] {
                let found = shown(binary(before, version, &module(lines)));
                assert_eq!(found.as_deref(), Some(want), "{before} {version}");
            }
        }
    }

    #[test]
    fn what_is_no_go_binary_leaves_it_unknown() {
        for bytes in [
            Vec::new(),
            vec![0; 5000],
            MAGIC.to_vec(),
            binary(3, "devel", ""),
        ] {
            assert_eq!(shown(bytes), None);
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(resolver(Some(folder.path())), RuntimeResolver::default());
        let put = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, binary(9, "go1.24.4", "build\tCGO_ENABLED=0\n")).unwrap();
        };
        put(BINARIES[0]);
        assert_eq!(resolver(Some(folder.path())).cgo, Some(false));
        // Which of the two runs is not known.
        put(BINARIES[1]);
        assert_eq!(resolver(Some(folder.path())), RuntimeResolver::default());
    }
}
