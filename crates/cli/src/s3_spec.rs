//! `type=s3` of `--cache-from` and `--cache-to`: what was typed, and what becomes of it with what the environment says.

use std::net::IpAddr;
use std::time::Duration;

use rbuild_cache::{Buckets, RetryPolicy, S3Bucket, S3Cache, S3Client, S3Credentials, S3Limits};

use crate::aws::AwsSettings;
use crate::commands::amounts::duration;
use crate::error::CommandError;
use crate::fields::Fields;

/// Attributes of both flags.
pub(crate) const S3_ATTRIBUTES: [&str; 14] = [
    "bucket",
    "region",
    "endpoint_url",
    "use_path_style",
    "prefix",
    "blobs_prefix",
    "manifests_prefix",
    "name",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "disable_accept_encoding",
    "retry_mode",
    "retry_max_attempts",
];
const TOUCH_REFRESH: &str = "touch_refresh";
const UPLOADS: &str = "upload_parallelism";
/// Attributes of `--cache-to` alone.
pub(crate) const S3_WRITE_ATTRIBUTES: [&str; 2] = [TOUCH_REFRESH, UPLOADS];

const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// More requests at a time are refused by servers rather than answered sooner.
const MOST_UPLOADS: usize = 64;
const MOST_ATTEMPTS: u32 = 50;
/// What keys may have, as S3 has it.
const LONGEST_KEY: usize = 900;

/// A cache in a bucket, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Spec {
    bucket: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
    use_path_style: Option<bool>,
    blobs: String,
    manifests: String,
    names: Vec<String>,
    credentials: Option<S3Credentials>,
    attempts: Option<u32>,
    touch_refresh: Duration,
    uploads: Option<usize>,
}

/// A cache in a bucket, and who asks for it.
#[derive(Clone, Debug)]
pub(crate) struct S3Target {
    pub(crate) cache: S3Cache,
    pub(crate) touch_refresh: Duration,
    credentials: Option<S3Credentials>,
    limits: S3Limits,
}

impl S3Spec {
    /// Takes the attributes of `--cache-from`.
    pub(crate) fn to_read(fields: &mut Fields) -> Result<Self, String> {
        if let Some(key) = S3_WRITE_ATTRIBUTES.iter().find(|key| !fields.is_missing(key)) {
            return Err(format!("`{key}` is an attribute of --cache-to: nothing is written here"));
        }
        Self::to_write(fields)
    }

    /// Takes the attributes of `--cache-to`.
    pub(crate) fn to_write(fields: &mut Fields) -> Result<Self, String> {
        let text = |fields: &mut Fields, key: &str| match fields.take(key) {
            Some(value) if value.is_empty() => Err(format!("`{key}` is empty")),
            value => Ok(value),
        };
        let bucket = text(fields, "bucket")?;
        let region = text(fields, "region")?;
        let endpoint = text(fields, "endpoint_url")?;
        if let Some(endpoint) = &endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            return Err(format!(
                "`endpoint_url` is an address such as https://minio.example:9000, not `{endpoint}`"
            ));
        }
        let prefix = sensible_key("prefix", fields.take("prefix").unwrap_or_default())?;
        let below = |fields: &mut Fields, key: &str, default: &str| {
            let below = fields.take(key).unwrap_or_else(|| default.to_owned());
            sensible_key(key, format!("{prefix}{below}"))
        };
        let blobs = below(fields, "blobs_prefix", "blobs/")?;
        let manifests = below(fields, "manifests_prefix", "manifests/")?;
        let names = fields.take("name").unwrap_or_else(|| "buildkit".to_owned());
        let mut seen = Vec::new();
        for name in names.split(';') {
            if name.is_empty() {
                return Err(
                    "`name` is a name, or several with `;` between them; one of them is empty"
                        .to_owned(),
                );
            }
            let name = sensible_key("name", name.to_owned())?;
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        // None is sent, so there is none to be left out either.
        fields.boolean("disable_accept_encoding", false)?;
        match fields.take("retry_mode").as_deref() {
            None | Some("standard") => {}
            Some(other) => {
                return Err(format!("retry_mode={other} is not supported: it is `standard`"));
            }
        }
        let attempts = within(fields, "retry_max_attempts", MOST_ATTEMPTS)?;
        let uploads = within(fields, UPLOADS, MOST_UPLOADS)?;
        let touch_refresh = match fields.take(TOUCH_REFRESH) {
            Some(text) if text == "0" => Duration::ZERO,
            Some(text) => duration(&text)
                .map_err(|_| format!("`{TOUCH_REFRESH}` is a time such as 24h, not `{text}`"))?,
            None => A_DAY,
        };
        Ok(Self {
            bucket,
            region,
            endpoint,
            use_path_style: fields.switch("use_path_style")?,
            blobs,
            manifests,
            names: seen,
            credentials: credentials(fields)?,
            attempts,
            touch_refresh,
            uploads,
        })
    }

    /// Whether both write the same object.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.bucket == other.bucket
            && self.endpoint == other.endpoint
            && self.manifests == other.manifests
            && self.names.iter().any(|name| other.names.contains(name))
    }

    /// What was typed comes before what the environment says.
    pub(crate) fn resolve(&self, aws: &AwsSettings) -> Result<S3Target, CommandError> {
        let given =
            |own: &Option<String>, other: &Option<String>| own.clone().or_else(|| other.clone());
        let bucket = given(&self.bucket, &aws.bucket).ok_or_else(|| {
            CommandError::usage("type=s3 needs bucket=NAME")
                .hint("AWS_BUCKET says it for all caches")
        })?;
        let own_endpoint = given(&self.endpoint, &aws.endpoint);
        let region = given(&self.region, &aws.region);
        let region = region.or_else(|| own_endpoint.is_some().then(|| "us-east-1".to_owned()));
        let region = region.ok_or_else(|| {
            CommandError::usage("type=s3 needs region=NAME")
                .hint("AWS_REGION, or the profile in ~/.aws/config, says it for all caches")
        })?;
        if !region.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            let region = region.escape_default();
            let message = format!("a region is a name such as eu-central-1, not `{region}`");
            return Err(CommandError::usage(message));
        }
        let endpoint = own_endpoint.unwrap_or_else(|| S3Bucket::amazon(&region));
        if has_login(&endpoint) {
            return Err(CommandError::usage("the endpoint of a bucket has a login in its address")
                .hint("keys are access_key_id and secret_access_key, or variables of AWS's"));
        }
        let use_path_style = self.use_path_style.unwrap_or_else(|| needs_path(&endpoint, &bucket));
        let credentials = match &self.credentials {
            Some(credentials) => Some(credentials.clone()),
            None => aws.credentials()?,
        };
        let bucket = S3Bucket { endpoint, region, bucket, use_path_style };
        if bucket.url("key").is_none() {
            let S3Bucket { endpoint, bucket, .. } = bucket;
            let message =
                format!("the endpoint `{endpoint}` and the bucket `{bucket}` make no address");
            return Err(CommandError::usage(message).hint("use_path_style=true takes any name"));
        }
        let mut limits = S3Limits::default();
        if let Some(attempts) = self.attempts {
            limits.retry = RetryPolicy { attempts, ..limits.retry };
        }
        limits.uploads = self.uploads.unwrap_or(limits.uploads);
        let (blobs, manifests) = (self.blobs.clone(), self.manifests.clone());
        let cache = S3Cache { bucket, blobs, manifests, names: self.names.clone() };
        Ok(S3Target { cache, credentials, limits, touch_refresh: self.touch_refresh })
    }
}

impl std::fmt::Display for S3Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bucket = self.bucket.as_deref().unwrap_or_default();
        write!(f, "s3:{bucket}/{}{}", self.manifests, self.names.join(";"))
    }
}

impl S3Target {
    /// Who speaks to the bucket.
    pub(crate) fn client(&self, buckets: &Buckets) -> S3Client {
        buckets.client(self.cache.bucket.clone(), self.credentials.clone(), self.limits.clone())
    }
}

fn credentials(fields: &mut Fields) -> Result<Option<S3Credentials>, String> {
    let mut take = |key| fields.take(key).filter(|value| !value.is_empty());
    let (id, secret) = (take("access_key_id"), take("secret_access_key"));
    let session_token = take("session_token");
    match (id, secret) {
        (Some(access_key_id), Some(secret_access_key)) => {
            Ok(Some(S3Credentials { access_key_id, secret_access_key, session_token }))
        }
        (None, None) if session_token.is_none() => Ok(None),
        _ => {
            Err("`access_key_id` and `secret_access_key` belong together, `session_token` to both"
                .to_owned())
        }
    }
}

fn within<T>(fields: &mut Fields, key: &str, most: T) -> Result<Option<T>, String>
where
    T: std::str::FromStr + std::fmt::Display + PartialOrd + From<u8>,
{
    match fields.number::<T>(key)? {
        Some(number) if number < T::from(1) || number > most => {
            Err(format!("`{key}` is a number from 1 to {most}, not {number}"))
        }
        number => Ok(number),
    }
}

/// What an address can say: `a/../b` would be `b`.
fn sensible_key(attribute: &str, key: String) -> Result<String, String> {
    let is_wrong = key.len() > LONGEST_KEY
        || key.chars().any(char::is_control)
        || key.split('/').any(|part| matches!(part, "." | ".."));
    match is_wrong {
        true => Err(format!(
            "`{attribute}` has to be a part of an object's key, without `.` and `..`, not `{}`",
            key.escape_default()
        )),
        false => Ok(key),
    }
}

fn has_login(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest).contains('@')
}

/// Whether the bucket's name cannot be in the host's: that is an address, or the name has what certificates of `*.host` do not cover.
fn needs_path(endpoint: &str, bucket: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    host == "localhost" || host.parse::<IpAddr>().is_ok() || !bucket.chars().all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<S3Spec, String> {
        let fields: Vec<String> =
            text.split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect();
        let mut fields = Fields::of(&fields)?;
        let spec = S3Spec::to_write(&mut fields)?;
        fields.end(&S3_ATTRIBUTES).map(|()| spec)
    }

    #[test]
    fn what_is_typed_comes_first() {
        let aws = AwsSettings {
            bucket: Some("theirs".to_owned()),
            region: Some("eu-central-1".to_owned()),
            ..AwsSettings::default()
        };
        let target = spec("").unwrap().resolve(&aws).unwrap();
        let S3Cache { bucket, blobs, manifests, names } = target.cache;
        let expected = S3Bucket {
            endpoint: "https://s3.eu-central-1.amazonaws.com".to_owned(),
            region: "eu-central-1".to_owned(),
            bucket: "theirs".to_owned(),
            use_path_style: false,
        };
        assert_eq!(bucket, expected);
        assert_eq!((blobs.as_str(), manifests.as_str()), ("blobs/", "manifests/"));
        assert_eq!(names, ["buildkit"]);
        assert_eq!((target.touch_refresh, target.limits.uploads), (A_DAY, 4));
        let text = "bucket=own,region=cn-north-1,prefix=a/,blobs_prefix=b/,manifests_prefix=m/,name=x;y;x,\
                    touch_refresh=1h30m,upload_parallelism=9,retry_max_attempts=2";
        let target = spec(text).unwrap().resolve(&aws).unwrap();
        assert_eq!(target.cache.bucket.endpoint, "https://s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(target.cache.names, ["x", "y"]);
        assert_eq!(target.cache.manifest("x"), "a/m/x");
        assert!(target.cache.blobs == "a/b/" && target.limits.uploads == 9);
        assert_eq!((target.limits.retry.attempts, target.touch_refresh.as_secs()), (2, 5400));
        let none = AwsSettings::default();
        let own =
            spec("bucket=b,endpoint_url=http://127.0.0.1:9000").unwrap().resolve(&none).unwrap();
        assert!(own.cache.bucket.use_path_style && own.cache.bucket.region == "us-east-1");
        for (text, expected) in
            [("region=r", "needs bucket=NAME"), ("bucket=b", "needs region=NAME")]
        {
            let error = spec(text).unwrap().resolve(&none).unwrap_err();
            assert!(error.reason().contains(expected), "{}", error.reason());
        }
        for text in ["endpoint_url=http://u:p@h,region=r", "region=x@h/", "region=a/b"] {
            let error = spec(&format!("bucket=b,use_path_style=true,{text}")).unwrap();
            let reason = error.resolve(&none).unwrap_err().reason();
            assert!(reason.contains("has a login") || reason.contains("a region is"), "{reason}");
            assert!(!reason.contains("u:p"), "{reason}");
        }
        let wrong =
            spec("bucket=A_b,region=r,use_path_style=false,endpoint_url=http://[::1]:1").unwrap();
        assert!(wrong.resolve(&none).unwrap_err().reason().contains("make no address"));
    }

    #[test]
    fn where_the_name_of_a_bucket_goes() {
        for (endpoint, bucket, expected) in [
            ("https://s3.amazonaws.com", "cache", false),
            ("https://s3.amazonaws.com", "my.cache", true),
            ("http://127.0.0.1:9000", "cache", true),
            ("http://[::1]:9000/x", "cache", true),
            ("http://localhost", "cache", true),
            ("http://minio.example:9000", "cache", false),
        ] {
            assert_eq!(needs_path(endpoint, bucket), expected, "{endpoint} {bucket}");
        }
    }

    #[test]
    fn one_object_is_written_once() {
        let same = |a: &str, b: &str| spec(a).unwrap().is_same(&spec(b).unwrap());
        assert!(same("bucket=a,name=x;y", "bucket=a,name=y,region=r"));
        assert!(!same("bucket=a,name=x", "bucket=a,name=y"));
        assert!(!same("bucket=a", "bucket=b"));
        assert!(!same("bucket=a", "bucket=a,prefix=p/"));
    }
}
