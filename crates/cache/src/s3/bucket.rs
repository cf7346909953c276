//! Which bucket, and who asks.

use std::fmt;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::sign::encoded;

/// A bucket, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct S3Bucket {
    /// The server, without the bucket: `https://s3.eu-central-1.amazonaws.com`.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The name.
    pub bucket: String,
    /// Whether the name is in the path, and not in the host's name.
    pub use_path_style: bool,
}

impl S3Bucket {
    /// Amazon's own server of a region.
    pub fn amazon(region: &str) -> String {
        let more = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://s3.{region}.amazonaws.com{more}")
    }

    /// The address of an object; `None` if the endpoint is no address of HTTP, or no host can have the name of the bucket.
    pub fn url(&self, key: &str) -> Option<Url> {
        let mut url = Url::parse(&self.endpoint).ok()?;
        let has_login = !url.username().is_empty() || url.password().is_some();
        if has_login || !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let host = url.host_str()?.to_owned();
        let base = url.path().trim_end_matches('/').to_owned();
        let key = encoded(key, true);
        if self.use_path_style {
            url.set_path(&format!("{base}/{}/{key}", encoded(&self.bucket, false)));
        } else {
            let name = format!("{}.{host}", self.bucket);
            url.set_host(Some(&name)).ok()?;
            // What is no part of a host's name would be cut off, or be another host.
            if url.host_str() != Some(name.as_str()) {
                return None;
            }
            url.set_path(&format!("{base}/{key}"));
        }
        url.set_query(None);
        url.set_fragment(None);
        Some(url)
    }
}

impl fmt::Display for S3Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)
    }
}

/// Who asks. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The name of the key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// What comes with keys that are good for a while only.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_addresses() {
        let url = |endpoint: &str, bucket: &str, use_path_style, key: &str| {
            let (endpoint, region) = (endpoint.to_owned(), "r".to_owned());
            let bucket = S3Bucket { endpoint, region, bucket: bucket.to_owned(), use_path_style };
            bucket.url(key).map(|url| url.to_string())
        };
        let aws = "https://s3.eu-central-1.amazonaws.com";
        let expected = "https://cache.s3.eu-central-1.amazonaws.com/a/sha256%3A1";
        assert_eq!(url(aws, "cache", false, "a/sha256:1").as_deref(), Some(expected));
        let expected = "http://127.0.0.1:9000/base/cache/a%20b";
        assert_eq!(
            url("http://127.0.0.1:9000/base/", "cache", true, "a b").as_deref(),
            Some(expected)
        );
        assert_eq!(url("http://127.0.0.1:9000", "cache", false, "x"), None);
        assert_eq!(url(aws, "evil.example/", false, "x"), None);
        assert_eq!(url("http://user@x", "cache", true, "x"), None);
        assert_eq!(url("http://:password@x", "cache", true, "x"), None);
        assert_eq!(url("ftp://x", "cache", true, "x"), None);
        assert_eq!(url("minio:9000", "cache", true, "x"), None);
        let own = S3Credentials {
            access_key_id: "AKIA".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: Some("token".to_owned()),
        };
        assert_eq!(format!("{own:?}"), "S3Credentials { .. }");
    }
}
