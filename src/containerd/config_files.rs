//! Finds and reads containerd's configuration file, `config.toml`, and the files that it imports.
//! [`super::config_toml`] decides what they mean.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use toml_edit::{Document, Item, Value};

use super::go;
use super::node_files::{line_at, read};
use super::start;
use crate::files;
use crate::model::text::printable;
use crate::pull_secret::key::glob;
use crate::redact::Secret;

/// A value of a TOML file, with the types that containerd's decoders distinguish. Texts may be passwords.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A table, inline or not.
    Table(BTreeMap<String, Node>),
    /// A list, or an array of tables.
    Array(Vec<Node>),
    /// A string.
    Text(Secret),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Bool(bool),
    /// A float or a date.
    Other,
}

impl Node {
    /// The entries of a table; `None` for another type.
    pub fn table(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }

    fn of(item: &Item) -> Self {
        if let Some(table) = item.as_table_like() {
            let entries = table.iter();
            let entries = entries.map(|(key, item)| (key.to_owned(), Self::of(item)));
            return Self::Table(entries.collect());
        }
        match item {
            Item::ArrayOfTables(tables) => {
                let tables = tables.iter().cloned();
                Self::Array(tables.map(|table| Self::of(&table.into())).collect())
            }
            Item::Value(Value::Array(values)) => {
                let values = values.iter().cloned();
                Self::Array(values.map(|value| Self::of(&value.into())).collect())
            }
            Item::Value(Value::String(text)) => Self::Text(Secret::new(text.value())),
            Item::Value(Value::Integer(number)) => Self::Integer(*number.value()),
            Item::Value(Value::Boolean(flag)) => Self::Bool(*flag.value()),
            _ => Self::Other,
        }
    }
}

/// One parsed file.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// The whole document.
    pub root: Node,
    /// What its `imports` match, in order.
    pub imports: Vec<Import>,
    /// The line, counted from 1, of a table header that containerd 1 can't parse.
    pub bracket_in_header: Option<usize>,
}

/// The files that one entry of `imports` matches.
#[derive(Clone, Debug)]
pub struct Import {
    /// With a relative pattern resolved against the folder of the file.
    pub beside: Vec<PathBuf>,
    /// With it resolved against containerd's working directory, which is `/` under systemd.
    pub from_root: Vec<PathBuf>,
}

/// Why an imported file can't be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unusable {
    /// It can't be read on this machine; the node may have it.
    Unread(ErrorKind),
    /// It does not exist on the node: containerd runs on this machine.
    Absent,
    /// It is not valid TOML, so containerd does not start.
    Malformed {
        /// The first invalid line, counted from 1.
        line: usize,
    },
    /// The bound for imported files was reached.
    TooMany,
}

/// `config.toml` and its imports, by path.
#[derive(Clone, Debug)]
pub struct ConfigFiles {
    /// The path of `config.toml`.
    pub main: PathBuf,
    /// Every file, `config.toml` included, or why it can't be used.
    pub files: BTreeMap<PathBuf, Result<ConfigFile, Unusable>>,
    /// The containerd on this machine was started with them.
    pub in_force: bool,
}

/// Bound for the files of one configuration.
const MAX_FILES: usize = 64;

impl ConfigFiles {
    /// Reads all files that `text`, the content of `main`, imports directly or indirectly.
    ///
    /// # Errors
    /// The first line of `text`, counted from 1, that is not valid TOML.
    pub fn load(main: &Path, text: &[u8]) -> Result<Self, usize> {
        let first = parse(main, text)?;
        let mut pending: VecDeque<PathBuf> = targets(&first).collect();
        let mut files = BTreeMap::from([(main.to_owned(), Ok(first))]);
        while let Some(path) = pending.pop_front() {
            if files.contains_key(&path) {
                continue;
            }
            if files.len() >= MAX_FILES {
                files.insert(path, Err(Unusable::TooMany));
                break;
            }
            let file = match read(&path) {
                Err(error) => Err(Unusable::Unread(error.kind())),
                Ok(bytes) => parse(&path, &bytes).map_err(|line| Unusable::Malformed { line }),
            };
            if let Ok(file) = &file {
                pending.extend(targets(file));
            }
            files.insert(path, file);
        }
        Ok(Self {
            main: main.to_owned(),
            files,
            in_force: false,
        })
    }

    /// States that the files belong to this machine: a file that is missing here is missing on the node. The age of its
    /// folder shows whether it was missing when containerd started.
    pub fn are_of_this_node(&mut self, started: SystemTime) {
        for (path, file) in &mut self.files {
            let is_missing = matches!(file, Err(Unusable::Unread(ErrorKind::NotFound)));
            if is_missing && start::was_absent(path, started) {
                *file = Err(Unusable::Absent);
            }
        }
    }

    /// The top table of the main file; `None` if the file can't be used.
    pub fn top(&self) -> Option<&BTreeMap<String, Node>> {
        self.files.get(&self.main)?.as_ref().ok()?.root.table()
    }

    /// The path for messages.
    pub fn shown(&self) -> String {
        printable(&self.main.to_string_lossy())
    }
}

fn targets(file: &ConfigFile) -> impl Iterator<Item = PathBuf> {
    let imports = file.imports.iter();
    let both = imports.flat_map(|import| import.beside.iter().chain(&import.from_root));
    both.cloned()
}

fn parse(path: &Path, bytes: &[u8]) -> Result<ConfigFile, usize> {
    let text = std::str::from_utf8(bytes).map_err(|error| line_at(bytes, error.valid_up_to()))?;
    let document = Document::parse(text)
        .map_err(|error| line_at(bytes, error.span().map_or(0, |span| span.start)))?;
    let root = Node::of(document.as_item());
    let entries = match root.table().and_then(|table| table.get("imports")) {
        Some(Node::Array(entries)) => entries.as_slice(),
        _ => &[],
    };
    let imports = entries
        .iter()
        .filter_map(|entry| match entry {
            Node::Text(pattern) => Some(import(path, pattern.expose())),
            _ => None,
        })
        .collect();
    Ok(ConfigFile {
        root,
        imports,
        bracket_in_header: go::bracket_in_header(text),
    })
}

/// `resolveImports`, with the rules of older releases as well.
fn import(parent: &Path, entry: &str) -> Import {
    let folder = parent.parent().unwrap_or(Path::new("/"));
    let beside = go::clean(&folder.join(entry));
    if !entry.contains('*') {
        let one = vec![beside];
        return Import {
            from_root: one.clone(),
            beside: one,
        };
    }
    let from_root = go::clean(&Path::new("/").join(entry));
    Import {
        beside: matches(&beside),
        from_root: matches(&from_root),
    }
}

/// Go's `filepath.Glob`: existing files, sorted by name.
fn matches(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str().to_string_lossy();
        let is_pattern =
            matches!(part, Component::Normal(_)) && name.contains(['*', '?', '[', '\\']);
        let mut next = Vec::new();
        for folder in &found {
            if !is_pattern {
                next.push(folder.join(part));
                continue;
            }
            let entries = files::list(folder).into_iter().flatten();
            let mut names: Vec<_> = entries
                .filter_map(|entry| Some(entry.path.file_name()?.to_owned()))
                .filter(|entry| glob(&name, &entry.to_string_lossy()) == Some(true))
                .collect();
            names.sort();
            next.extend(names.into_iter().map(|name| folder.join(name)));
        }
        next.truncate(MAX_FILES * 2);
        found = next;
    }
    found.retain(|path| files::exists(path));
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn imports_are_followed_once_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("conf.d")).unwrap();
        fs::write(at("conf.d/b.toml"), "imports = [\"../config.toml\"]\n").unwrap();
        fs::write(at("conf.d/a.toml"), "imports = [\"none.toml\"]\n").unwrap();
        fs::write(at("conf.d/x.txt"), "").unwrap();
        fs::write(at("bad.toml"), "a = 1\nb\n").unwrap();
        let text = "imports = [\"conf.d/*.toml\", \"bad.toml\"]\n";
        let mut files = ConfigFiles::load(&at("config.toml"), text.as_bytes()).unwrap();
        let names: Vec<_> = files
            .files
            .iter()
            .map(|(path, file)| {
                let name = path.strip_prefix(folder.path()).unwrap();
                (name.to_string_lossy().into_owned(), file.is_ok())
            })
            .collect();
        let want = [
            ("bad.toml", false),
            ("conf.d/a.toml", true),
            ("conf.d/b.toml", true),
            ("conf.d/none.toml", false),
            ("config.toml", true),
        ];
        assert_eq!(names, want.map(|(name, is_ok)| (name.to_owned(), is_ok)));
        assert_eq!(
            files.files[&at("bad.toml")].as_ref().unwrap_err(),
            &Unusable::Malformed { line: 2 }
        );
        let main = files.files[&at("config.toml")].as_ref().unwrap();
        let order: Vec<_> = main.imports[0].beside.iter().collect();
        assert_eq!(order, [&at("conf.d/a.toml"), &at("conf.d/b.toml")]);

        let missing = at("conf.d/none.toml");
        let unread = Unusable::Unread(ErrorKind::NotFound);
        assert_eq!(files.files[&missing].as_ref().unwrap_err(), &unread);
        // On the node itself, a missing file exists nowhere; but before its folder was changed, it may have existed.
        let hour = std::time::Duration::from_hours(1);
        files.are_of_this_node(SystemTime::now() - hour);
        assert_eq!(files.files[&missing].as_ref().unwrap_err(), &unread);
        files.are_of_this_node(SystemTime::now() + hour);
        let absent = Unusable::Absent;
        assert_eq!(files.files[&missing].as_ref().unwrap_err(), &absent);
    }

    #[test]
    fn files_are_not_followed_without_end() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..200 {
            let text = format!("imports = [\"{}.toml\"]\n", number + 1);
            fs::write(folder.path().join(format!("{number}.toml")), text).unwrap();
        }
        let main = folder.path().join("0.toml");
        let files = ConfigFiles::load(&main, b"imports = [\"1.toml\"]\n").unwrap();
        assert_eq!(files.files.len(), MAX_FILES + 1);
        let too_many = |file: &Result<ConfigFile, Unusable>| matches!(file, Err(Unusable::TooMany));
        assert_eq!(
            files.files.values().filter(|file| too_many(file)).count(),
            1
        );
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line() {
        let load = |text: &[u8]| ConfigFiles::load(Path::new("/c.toml"), text).unwrap_err();
        assert_eq!(load(b"version = 2\n[plugins\n"), 2);
        assert_eq!(load(b"version = 2\n\na = \"\xff\"\n"), 3);
    }
}
