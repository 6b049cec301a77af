//! What the error codes of object storages mean: those of S3 and of storages with its protocol (OBS, OSS, COS, Google
//! Cloud Storage, MinIO, Ceph), and those of Azure.

use super::finding::at;
use super::tls;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::Evidence;
use crate::model::fault::{HttpFault, Phase};

/// What a storage reports about a request with a URL that the registry signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Problem {
    /// The signature is past its end, or not valid yet.
    SignatureTime,
    /// The signer's clock differs from the storage's.
    SignerClock,
    /// The temporary credential that the registry signs with has expired.
    SignerExpired,
    /// The storage does not know the access key that the registry signs with.
    SignerUnknown,
    /// The signature does not fit the request.
    Signature,
    /// The request has no signature, and one is required.
    NotSigned,
    /// The request has a signature in its URL and a login in a header.
    TwoLogins,
    /// The key that encrypts the objects: the signer may not use it, or it is disabled.
    Encryption,
    /// The bucket must be part of the host's name.
    Addressing,
    /// The policy of a VPC endpoint does not allow the request.
    EndpointPolicy,
    /// The object does not exist, or the URL has no signature and the container is private.
    Hidden,
    /// The bucket or container does not exist.
    NoBucket,
    /// The object does not exist in its bucket.
    NoObject,
    /// The bucket is in another region, or under another name.
    OtherRegion,
    /// The object is in an archive class and has to be restored first.
    Archived,
    /// The account of the bucket is disabled, or has not paid.
    Account,
    /// Rules for client addresses or networks exclude this client.
    Network,
    /// The signer lacks the right to read.
    Right,
    /// The code does not show which of several rules applied.
    Denied,
}

/// Codes are compared exactly: they are the storages' API.
fn problem(status: u16, code: &str, message: &str) -> Option<Problem> {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let is_of_time = says(&[
        "request has expired",
        "signature expired",
        "signature has expired",
        "url has expired",
        "not valid yet",
        "not yet valid",
        "signature not valid in the specified time frame",
    ]);
    let is_of_key = says(&["kms:"]) || code.starts_with("KMS.");
    Some(match code {
        _ if is_of_key => Problem::Encryption,
        _ if says(&["vpc endpoint policy"]) => Problem::EndpointPolicy,
        _ if says(&["only one auth mechanism"]) => Problem::TwoLogins,
        "VirtualHostDomainRequired" | "SecondLevelDomainForbidden" | "PathStyleDomainForbidden" => {
            Problem::Addressing
        }
        "ResourceNotFound" => Problem::Hidden,
        "RequestTimeTooSkewed" => Problem::SignerClock,
        "ExpiredToken" | "AccessDenied" | "AuthenticationFailed" | "RequestExpired"
            if is_of_time =>
        {
            Problem::SignatureTime
        }
        "RequestExpired" => Problem::SignatureTime,
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "SecurityTokenExpired" => {
            Problem::SignerExpired
        }
        "InvalidAccessKeyId" | "InvalidSecurity" | "NotSignedUp" => Problem::SignerUnknown,
        "SignatureDoesNotMatch" | "AuthenticationFailed" | "InvalidAuthenticationInfo" => {
            Problem::Signature
        }
        "NoAuthenticationInformation"
        | "MissingSecurityHeader"
        | "PublicAccessNotPermitted"
        | "MissingKey" => Problem::NotSigned,
        "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" => Problem::NoBucket,
        "NoSuchKey" | "BlobNotFound" => Problem::NoObject,
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "AuthorizationQueryParametersError"
        | "IllegalLocationConstraintException" => Problem::OtherRegion,
        "InvalidObjectState" | "BlobArchived" => Problem::Archived,
        "AllAccessDisabled"
        | "AccountProblem"
        | "UserProjectAccountProblem"
        | "AccountIsDisabled"
        | "UserDisable"
        | "InArrearOrInsufficientBalance" => Problem::Account,
        "AuthorizationFailure" | "AuthorizationSourceIPMismatch" | "SecurityPolicyViolated" => {
            Problem::Network
        }
        _ if says(&[
            "organization's policy",
            "vpc service controls",
            "vpcservicecontrols",
        ]) =>
        {
            Problem::Network
        }
        "AuthorizationPermissionMismatch"
        | "AuthorizationServiceMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "InsufficientAccountPermissions"
        | "KeyBasedAuthenticationNotPermitted" => Problem::Right,
        "AccessDenied" if says(&["does not have storage.objects", "not authorized to perform"]) => {
            Problem::Right
        }
        "AccessDenied" | "AccessForbidden" | "Forbidden" if matches!(status, 401 | 403) => {
            Problem::Denied
        }
        _ => return None,
    })
}

/// The finding for a layer that the storage behind the registry's redirect did not serve, by its error code. `None` if
/// the code is not known.
pub(super) fn refused(evidence: &Evidence, fault: &HttpFault) -> Option<Finding> {
    let HttpFault::Status {
        status,
        code,
        message,
        ..
    } = fault
    else {
        return None;
    };
    let code = code.as_deref().unwrap_or_default();
    let problem = problem(*status, code, message.as_deref().unwrap_or_default())?;
    let cause = match problem {
        Problem::NoObject | Problem::Hidden => Cause::BlobUnknown,
        _ => Cause::BlobDenied,
    };
    let storage = evidence.walk.legs_of(Role::Blob).last();
    let storage = storage.map(|leg| &leg.endpoint);
    let is_of_clock = matches!(problem, Problem::SignatureTime | Problem::SignerClock);
    let apart = tls::apart(evidence, Role::Registry, Role::Blob).filter(|_| is_of_clock);
    let finding = at(cause, Role::Blob, Phase::Blob)
        .fact(fault.to_string())
        .facts(apart.map(|seconds| {
            format!("the clocks of the registry and of the storage are {seconds} s apart")
        }));
    let hint = hint(
        problem,
        &evidence.walk.host.endpoint,
        storage,
        apart.is_some(),
    );
    Some(
        match problem {
            // It may be any of several rules, of the bucket, of the endpoint or of the network.
            Problem::Denied => {
                finding.unknown("the storage does not say which of its rules refuses this")
            }
            Problem::Hidden => finding.unknown(
                "Azure answers the same for an object that is missing and for a private container if the URL has no signature",
            ),
            _ => finding,
        }
        .hint(hint),
    )
}

fn hint(
    problem: Problem,
    registry: &Endpoint,
    storage: Option<&Endpoint>,
    clocks_differ: bool,
) -> String {
    let at = storage.map_or_else(|| "the storage".to_owned(), ToString::to_string);
    match problem {
        Problem::SignatureTime if clocks_differ => {
            format!("Fix the clock (NTP) of the registry {registry}: the storage judges the URLs that it signs by a different time.")
        }
        Problem::SignatureTime => format!(
            "Compare the clock of the registry {registry}, which signs the URL, with that of {at}. If both are right, let no cache in front of the registry keep its redirects, or sign for a longer time. The clock of this machine plays no part."
        ),
        Problem::SignerClock => format!(
            "Fix the clock (NTP) of the registry {registry}: it signs the URLs, and its time differs too much from that of {at}. The clock of this machine plays no part."
        ),
        Problem::SignerExpired => format!(
            "Renew the temporary credential that the registry {registry} signs its URLs with, and restart the registry if it does not read it again."
        ),
        Problem::SignerUnknown => format!(
            "Give the registry {registry} a valid access key for its storage: {at} does not know the one that signed the URL (deleted, or of another account or service)."
        ),
        Problem::Signature => format!(
            "Check the secret key of the storage in the configuration of the registry {registry}. If it is right, look for a proxy in front of {at} that changes the Host header, the path or the query of a signed URL."
        ),
        Problem::NotSigned => format!(
            "Let the registry {registry} redirect to signed URLs, or let it serve layers itself (redirects off): {at} requires a signature, and the URL has none. A proxy that cuts off the query does this too."
        ),
        Problem::NoBucket => format!(
            "Correct the bucket (container) in the storage settings of the registry {registry}, or create it again: {at} does not have it. A wrong region or endpoint has the same effect. Pushing one image again does not help."
        ),
        Problem::NoObject => format!(
            "Push the image again: the storage does not have this part of it. If other images fail like this, correct the bucket or the folder (rootdirectory, prefix) in the storage settings of the registry {registry} instead."
        ),
        Problem::Hidden => format!(
            "Check in the storage whether the object exists. If so, let the registry {registry} redirect to URLs with a signature (SAS), or serve layers itself (redirects off); otherwise push the image again."
        ),
        Problem::TwoLogins => format!(
            "Give the storage {at} a host name that is not the registry's and not below it, or let the registry {registry} serve layers itself (redirects off): containerd sends the registry's token to such a host, and a URL with a signature rejects that."
        ),
        Problem::Encryption => format!(
            "Check the key that encrypts the bucket: whether it is enabled, and whether the account that the registry {registry} signs its URLs with may decrypt with it (AWS: kms:Decrypt)."
        ),
        Problem::Addressing => format!(
            "Let the registry {registry} put the bucket into the host's name of its URLs (distribution: `forcepathstyle: false`): {at} does not serve buckets by path."
        ),
        Problem::EndpointPolicy => format!(
            "Allow the registry's bucket in the policy of the VPC endpoint through which this network reaches {at}."
        ),
        Problem::OtherRegion => format!(
            "Correct the region and the endpoint in the storage settings of the registry {registry}: the bucket is not served at {at}."
        ),
        Problem::Archived => "Restore the object from its archive class, and exclude the registry's bucket from the lifecycle rule that archives objects; or push the image again.".to_owned(),
        Problem::Account => format!(
            "Ask the owner of the storage account at {at}: it is disabled, or in arrears."
        ),
        Problem::Network => format!(
            "Allow this client's network at {at}: a firewall rule, an allow-list of addresses or a perimeter of the storage refuses it. If the layers should take a private path, check that {at} resolves to the VPC endpoint's address here."
        ),
        Problem::Right => format!(
            "Give the account that the registry {registry} signs its URLs with the right to read objects in its bucket."
        ),
        Problem::Denied => format!(
            "Check, in this order: the policy of the VPC endpoint for {at} (it has to allow the registry's bucket), the bucket's own policy and its allow-list of addresses, the right of the registry's account to read objects, and the registry's clock (a CDN answers the same for an expired URL)."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_each_storage_are_known() {
        use Problem::{
            Account, Archived, Denied, Network, NoBucket, NoObject, NotSigned, OtherRegion, Right,
            Signature, SignatureTime, SignerClock, SignerExpired, SignerUnknown,
        };
        for (status, code, message, expected) in [
            // S3, MinIO, OSS, OBS, COS
            (403, "AccessDenied", "Request has expired", SignatureTime),
            (
                403,
                "AccessDenied",
                "Request is not valid yet",
                SignatureTime,
            ),
            (403, "AccessDenied", "Access Denied", Denied),
            (
                403,
                "RequestTimeTooSkewed",
                "The difference between",
                SignerClock,
            ),
            (
                400,
                "ExpiredToken",
                "The provided token has expired.",
                SignerExpired,
            ),
            (403, "InvalidAccessKeyId", "", SignerUnknown),
            (403, "SignatureDoesNotMatch", "", Signature),
            (404, "NoSuchBucket", "", NoBucket),
            (404, "NoSuchKey", "", NoObject),
            (301, "PermanentRedirect", "", OtherRegion),
            (
                400,
                "AuthorizationHeaderMalformed",
                "the region is wrong",
                OtherRegion,
            ),
            (403, "InvalidObjectState", "", Archived),
            (403, "AllAccessDisabled", "", Account),
            (403, "InArrearOrInsufficientBalance", "", Account),
            (403, "NotSignedUp", "", SignerUnknown),
            (403, "UserDisable", "", Account),
            // Google Cloud Storage
            (
                400,
                "ExpiredToken",
                "Invalid argument. Request signature expired at: x",
                SignatureTime,
            ),
            (
                403,
                "AccessDenied",
                "a does not have storage.objects.get access",
                Right,
            ),
            (403, "SecurityPolicyViolated", "", Network),
            (
                403,
                "",
                "Request is prohibited by organization's policy.",
                Network,
            ),
            // Azure
            (
                403,
                "AuthenticationFailed",
                "Server failed. Signature not valid in the specified time frame: Start",
                SignatureTime,
            ),
            (
                403,
                "AuthenticationFailed",
                "Server failed to authenticate the request.",
                Signature,
            ),
            (403, "AuthorizationFailure", "", Network),
            (403, "AuthorizationPermissionMismatch", "", Right),
            (404, "ContainerNotFound", "", NoBucket),
            (404, "BlobNotFound", "", NoObject),
            (409, "PublicAccessNotPermitted", "", NotSigned),
            (401, "NoAuthenticationInformation", "", NotSigned),
            (409, "BlobArchived", "", Archived),
            (403, "AccountIsDisabled", "", Account),
        ] {
            assert_eq!(
                problem(status, code, message),
                Some(expected),
                "{code}: {message}"
            );
        }
        for (status, code) in [
            (403, "DENIED"),
            (404, "BLOB_UNKNOWN"),
            (503, "SlowDown"),
            (404, ""),
        ] {
            assert_eq!(problem(status, code, ""), None, "{code}");
        }
    }

    #[test]
    fn codes_of_keys_policies_and_addresses_are_known() {
        use Problem::{
            Addressing, Encryption, EndpointPolicy, Hidden, NotSigned, Right, TwoLogins,
        };
        for (status, code, message, expected) in [
            (
                403,
                "AccessDenied",
                "User: x is not authorized to perform: kms:Decrypt on resource: y because no identity-based policy allows it",
                Encryption,
            ),
            (400, "KMS.DisabledException", "", Encryption),
            (
                403,
                "AccessDenied",
                "User: x is not authorized to perform: s3:GetObject on resource: y because no VPC endpoint policy allows the s3:GetObject action",
                EndpointPolicy,
            ),
            (
                403,
                "AccessDenied",
                "User: x is not authorized to perform: s3:GetObject on resource: y with an explicit deny in a resource-based policy",
                Right,
            ),
            (
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter",
                TwoLogins,
            ),
            (403, "VirtualHostDomainRequired", "", Addressing),
            (
                403,
                "MissingKey",
                "Missing Key-Pair-Id query parameter",
                NotSigned,
            ),
            (404, "ResourceNotFound", "", Hidden),
        ] {
            assert_eq!(
                problem(status, code, message),
                Some(expected),
                "{code}: {message}"
            );
        }
    }
}
