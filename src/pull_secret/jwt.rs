//! Reads the claims of a token (JWT, RFC 7519) without verifying it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The payload of a JWT (RFC 7519, 3), unverified. `None`: the text is not a JWT.
pub fn claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// When a JWT was issued (`iat`, else `nbf`; `None` if it has neither) and when it expires (`exp`; RFC 7519, 4.1).
/// `None`: it is not a JWT, or does not expire. Nothing is verified.
pub fn validity(token: &str) -> Option<(Option<Timestamp>, Timestamp)> {
    let claims = claims(token.trim())?;
    let at = |name: &str| {
        let number = claims.get(name)?;
        // NumericDate may have a fraction.
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds suffice")]
        let seconds = number.as_i64().or_else(|| Some(number.as_f64()? as i64))?;
        Timestamp::from_second(seconds).ok()
    };
    Some((at("iat").or_else(|| at("nbf")), at("exp")?))
}
