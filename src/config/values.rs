//! Types of values: what each may be, and the error message if it is not.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use url::Url;

use crate::model::endpoint::split_port;
use crate::model::nat64;
use crate::model::platform::Platform;
use crate::model::reference::{Reference, ReferenceError};
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::net::resolv::parse_nameserver;

/// Reads a section whose lines are all comments (null in YAML) as the default.
pub(super) fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Parses a text. The error is `problem`: the text may be a password in the wrong place.
fn read<'de, D, T>(
    from: D,
    parse: impl FnOnce(&str) -> Option<T>,
    problem: &str,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| de::Error::custom(problem))
}

/// A duration such as `2m` or `1h30m`.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct Wait(#[schemars(with = "String")] pub Duration);

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let parse = |text: &str| Duration::try_from(text.parse::<SignedDuration>().ok()?).ok();
        let problem = "not a duration; write for example 90s, 5m or 1h";
        read(from, parse, problem).map(Self)
    }
}

/// A duration of at least `LEAST` and at most `MOST` seconds.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct WaitWithin<const LEAST: u64, const MOST: u64>(#[schemars(with = "String")] pub Duration);

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for WaitWithin<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Wait(duration) = Wait::deserialize(from)?;
        let bounds = [LEAST, MOST].map(Duration::from_secs);
        if duration < bounds[0] || duration > bounds[1] {
            let [least, most] = bounds.map(short);
            return Err(de::Error::custom(format!(
                "out of range; write {least} to {most}"
            )));
        }
        Ok(Self(duration))
    }
}

/// The duration in the form that the file uses: `90s`, `5m`, `1h`.
pub(super) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// A size such as `16MiB` or a number of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(pub Bytes);

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "integer"]})
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let problem = "not a size; write for example 16MiB";
        read(from, |text| text.parse().ok(), problem).map(Self)
    }
}

/// A size of `state_dir`.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct StateSize(pub Size);

impl StateSize {
    /// The state file has up to 12 MiB of it.
    const LEAST: Bytes = Bytes(16 << 20);
}

impl Default for StateSize {
    fn default() -> Self {
        Self(Size(Bytes(32 << 20)))
    }
}

impl<'de> Deserialize<'de> for StateSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let size = Size::deserialize(from)?;
        if size.0 < Self::LEAST {
            return Err(de::Error::custom("is too small; write 16MiB or more"));
        }
        Ok(Self(size))
    }
}

/// A share between 0 and 1.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct Fraction(pub f64);

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(from)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(de::Error::custom(
                "not a share; write a number between 0 and 1",
            ));
        }
        Ok(Self(share))
    }
}

/// A whole number of at least `LEAST` and at most `MOST`.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct CountWithin<const LEAST: u32, const MOST: u32>(pub u32);

impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for CountWithin<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let count = u64::deserialize(from)?;
        match u32::try_from(count) {
            Ok(count) if (LEAST..=MOST).contains(&count) => Ok(Self(count)),
            _ => Err(de::Error::custom(format!(
                "out of range; write {LEAST} to {MOST}"
            ))),
        }
    }
}

/// Where a server listens: `ADDRESS:PORT`, or `:PORT` for all addresses.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct ListenAddress(#[schemars(with = "String")] pub SocketAddr);

impl ListenAddress {
    /// The default for metrics, page and API: port 9797 of all addresses.
    pub const PUBLIC: Self = Self(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 9797));
    /// The default for reload and on-demand checks: port 9798 of loopback.
    pub const ADMIN: Self = Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9798));

    const FORM: &str = "ADDRESS:PORT; write for example 10.0.0.5:9797, or :9797 for all addresses";
}

impl std::str::FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = text.strip_prefix(':').map(|port| format!("[::]:{port}"));
        let parsed = all.as_deref().unwrap_or(text).parse();
        // $(HOST_IP):9797 in a manifest has no brackets if the address is an IPv6 one.
        let bare = || {
            let (address, port) = text.rsplit_once(':')?;
            Some((address.parse::<Ipv6Addr>().ok()?, port.parse().ok()?).into())
        };
        parsed
            .ok()
            .or_else(bare)
            .map(Self)
            .ok_or_else(|| format!("'{}' is not {}", printable(text), Self::FORM))
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map_err(|_: String| de::Error::custom(format!("not {}", Self::FORM)))
    }
}

/// An image, written as in a pod's `image:`.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct Image(#[schemars(with = "String")] pub Reference);

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map(Self)
            .map_err(|error: ReferenceError| de::Error::custom(error.rule()))
    }
}

/// An address range without host bits.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(transparent)]
pub(super) struct Cidr(#[schemars(with = "String")] pub(super) IpNet);

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        // A bare address is a range of one.
        let parsed = text.parse::<IpNet>().or_else(|_| {
            let address = text.parse::<IpAddr>();
            address.map(IpNet::from)
        });
        let net =
            parsed.map_err(|_| de::Error::custom("not a CIDR; write for example 10.8.0.0/16"))?;
        if net.trunc() != net {
            return Err(de::Error::custom(format!(
                "the range has host bits; write {}",
                net.trunc()
            )));
        }
        Ok(Self(net))
    }
}

/// A prefix of NAT64.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(transparent)]
pub(super) struct Nat64Prefix(#[schemars(with = "String")] pub(super) IpNet);

impl<'de> Deserialize<'de> for Nat64Prefix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Cidr(net) = Cidr::deserialize(from)?;
        if net.addr().is_ipv4() || !nat64::LENGTHS.contains(&net.prefix_len()) {
            return Err(de::Error::custom(
                "no prefix of NAT64: that is an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits (RFC 6052)",
            ));
        }
        Ok(Self(net))
    }
}

/// An IP address.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(transparent)]
pub(super) struct Address(#[schemars(with = "String")] pub(super) IpAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let problem = "not an IP address; write for example 121.36.9.9";
        read(from, |text| text.parse().ok(), problem).map(Self)
    }
}

/// An IP address and a port.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(transparent)]
pub(super) struct AddressPort(#[schemars(with = "String")] pub(super) SocketAddr);

impl<'de> Deserialize<'de> for AddressPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let problem = "not ADDRESS:PORT; write for example 10.0.0.1:443";
        read(from, |text| text.parse().ok(), problem).map(Self)
    }
}

/// `HOST:PORT`. The schema has it as a plain string.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(with = "String")]
pub struct HostPort {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl HostPort {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = split_port(text);
        // An IPv6 address without a port has colons too.
        let (host, port) = match port {
            Some(port) if !host.contains(':') || host.ends_with(']') => (host, port),
            _ => return None,
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:_%".contains(c);
        (!host.is_empty() && host.chars().all(is_host)).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let problem = "not HOST:PORT; write for example www.example.com:443";
        read(from, Self::parse, problem)
    }
}

/// The URL of an HTTP echo, which answers with the client's address.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct EchoUrl(#[schemars(with = "String")] pub Url);

impl<'de> Deserialize<'de> for EchoUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let url = Url::parse(&text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
        url.map(Self).ok_or_else(|| {
            // The text is not repeated, because it may contain a password.
            de::Error::custom(
                "an echo must be an http:// or https:// URL without user and password",
            )
        })
    }
}

/// A name server, `IP` or `IP:PORT`.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct NameServer(#[schemars(with = "String")] pub SocketAddr);

impl<'de> Deserialize<'de> for NameServer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let problem = "not IP or IP:PORT; write for example 10.0.0.2";
        read(from, |text| parse_nameserver(text).ok(), problem).map(Self)
    }
}

/// A platform, `OS/ARCH[/VARIANT]` as in OCI's image index.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct PlatformText(#[schemars(with = "String")] pub Platform);

impl<'de> Deserialize<'de> for PlatformText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let form = "not OS/ARCH or OS/ARCH/VARIANT; write for example linux/arm64";
        text.parse()
            .map(Self)
            .map_err(|_: String| de::Error::custom(form))
    }
}
