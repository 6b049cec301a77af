//! A ClientHello, read (RFC 8446 section 4.1.2).

/// What a client offered. Numbers are those of IANA's TLS registries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    /// Of the record, with its header of 5 bytes.
    pub bytes: usize,
    pub suites: Vec<u16>,
    /// The extensions' types, in ascending order.
    pub extensions: Vec<u16>,
    pub versions: Vec<u16>,
    pub groups: Vec<u16>,
    /// The groups that a key share came for, and its length.
    pub shares: Vec<(u16, usize)>,
    pub signature_schemes: Vec<u16>,
}

pub const RENEGOTIATION_INFO_SCSV: u16 = 0x00ff;
pub const ALPN: u16 = 16;

const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

impl Hello {
    /// Reads a record that holds a ClientHello and nothing else.
    pub fn read(record: &[u8]) -> Self {
        let mut rest = Reader(record);
        assert_eq!(rest.take(1), [22], "a handshake record");
        rest.take(2);
        let mut hello = Reader(rest.list(2));
        assert!(rest.0.is_empty(), "one record and nothing after it");
        assert_eq!(hello.take(1), [1], "a ClientHello");
        let mut hello = Reader(hello.list(3));
        hello.take(2 + 32);
        hello.list(1);
        let suites = Reader(hello.list(2)).numbers();
        hello.list(1);
        let mut extensions = Reader(hello.list(2));
        let mut read = Self {
            bytes: record.len(),
            suites,
            extensions: Vec::new(),
            versions: Vec::new(),
            groups: Vec::new(),
            shares: Vec::new(),
            signature_schemes: Vec::new(),
        };
        while !extensions.0.is_empty() {
            let (kind, content) = (extensions.number(), extensions.list(2));
            read.extension(kind, Reader(content));
        }
        read.extensions.sort_unstable();
        read
    }

    fn extension(&mut self, kind: u16, mut content: Reader<'_>) {
        self.extensions.push(kind);
        match kind {
            SUPPORTED_GROUPS => self.groups = Reader(content.list(2)).numbers(),
            SIGNATURE_ALGORITHMS => self.signature_schemes = Reader(content.list(2)).numbers(),
            SUPPORTED_VERSIONS => self.versions = Reader(content.list(1)).numbers(),
            KEY_SHARE => {
                let mut shares = Reader(content.list(2));
                while !shares.0.is_empty() {
                    let (group, share) = (shares.number(), shares.list(2));
                    self.shares.push((group, share.len()));
                }
            }
            _ => {}
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> u16 {
        let bytes = self.take(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    /// A vector whose length is in so many bytes before it.
    fn list(&mut self, length: usize) -> &'a [u8] {
        let length = self.take(length).iter();
        self.take(length.fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    fn numbers(&mut self) -> Vec<u16> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(self.number());
        }
        all
    }
}
