//! Signatures of requests: AWS Signature Version 4, as S3 wants them.

use rbuild_oci::Digest;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use ring::hmac;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::S3Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]");
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// Who asks, where and when.
#[derive(Debug)]
pub(super) struct Signing<'a> {
    pub(super) credentials: &'a S3Credentials,
    pub(super) region: &'a str,
    pub(super) now: OffsetDateTime,
}

impl Signing<'_> {
    /// Adds what says who asks. `headers` are all that is sent and means something, `payload` is the SHA-256 digest of the body.
    pub(super) fn sign(
        &self,
        method: &str,
        url: &Url,
        headers: &mut HeaderMap,
        payload: &Digest,
    ) -> Result<(), InvalidHeaderValue> {
        let (day, time) = (self.format(DAY), self.format(TIME));
        headers.insert("x-amz-date", HeaderValue::from_str(&time)?);
        headers.insert("x-amz-content-sha256", HeaderValue::from_str(&payload.hex())?);
        if let Some(token) = &self.credentials.session_token {
            headers.insert("x-amz-security-token", sensitive(token)?);
        }
        let (names, request) = canonical_request(method, url, headers, payload);
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hash = Digest::of(request.as_bytes()).hex();
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{hash}");
        let signature = self.signature(&day, &text);
        let who = &self.credentials.access_key_id;
        let value = format!(
            "{ALGORITHM} Credential={who}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        headers.insert(AUTHORIZATION, sensitive(&value)?);
        Ok(())
    }

    fn signature(&self, day: &str, text: &str) -> String {
        let secret = format!("AWS4{}", self.credentials.secret_access_key).into_bytes();
        let key = [day, self.region, "s3", "aws4_request"]
            .iter()
            .fold(secret, |key, part| mac(&key, part.as_bytes()));
        mac(&key, text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn format(&self, form: &[BorrowedFormatItem<'_>]) -> String {
        self.now.format(form).expect("a time has a year, a month and a day")
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
}

/// The names of the headers that are signed, and the request in the form that is signed.
fn canonical_request(
    method: &str,
    url: &Url,
    headers: &HeaderMap,
    payload: &Digest,
) -> (String, String) {
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    let header = |(name, value): (&HeaderName, _)| (name.as_str().to_owned(), text(value));
    let mut signed: Vec<(String, String)> = headers.iter().map(header).collect();
    signed.push(("host".to_owned(), host));
    signed.sort_unstable();
    let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let pair = |pair: &str| match pair.contains('=') {
        true => pair.to_owned(),
        false => format!("{pair}="),
    };
    let query = url.query().unwrap_or_default();
    let mut query: Vec<String> =
        query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    query.sort_unstable();
    let (path, query) = (url.path(), query.join("&"));
    let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{}", payload.hex());
    (names, request)
}

/// A path or a part of a query as it is signed: all but letters, digits and `-._~` as `%41`, slashes only in a path.
pub(super) fn encoded(text: &str, is_path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            b'/' if is_path => encoded.push('/'),
            _ => encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]),
        }
    }
    encoded
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).expect("four bits are one digit").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    /// The examples of "Signature Calculations for the Authorization Header" in the documentation of S3.
    #[test]
    fn the_examples_of_the_documentation() {
        let credentials = S3Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        };
        let now = datetime!(2013-05-24 00:00:00 UTC);
        let signing = Signing { credentials: &credentials, region: "us-east-1", now };
        let signed = |method: &str, path: &str, given: &[(&'static str, &str)], body: &[u8]| {
            let url = format!("https://examplebucket.s3.amazonaws.com/{path}");
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            let url = Url::parse(&url).unwrap();
            signing.sign(method, &url, &mut headers, &Digest::of(body)).unwrap();
            assert!(headers[AUTHORIZATION].is_sensitive());
            headers[AUTHORIZATION].to_str().unwrap().to_owned()
        };
        assert_eq!(
            signed("GET", "test.txt", &[("range", "bytes=0-9")], b""),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let put = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        for (authorization, signature) in [
            (
                signed("PUT", "test%24file.text", &put, b"Welcome to Amazon S3."),
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                signed("GET", "?lifecycle", &[], b""),
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                signed("GET", "?max-keys=2&prefix=J", &[], b""),
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            assert!(authorization.ends_with(&format!("Signature={signature}")), "{authorization}");
        }
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("a b/sha256:x~", true), "a%20b/sha256%3Ax~");
        assert_eq!(encoded("a/ü", false), "a%2F%C3%BC");
    }

    #[test]
    fn a_token_goes_along_and_is_no_text_for_logs() {
        let credentials = S3Credentials {
            access_key_id: "A".to_owned(),
            secret_access_key: "B".to_owned(),
            session_token: Some("C".to_owned()),
        };
        let now = datetime!(2013-05-24 00:00:00 UTC);
        let signing = Signing { credentials: &credentials, region: "r", now };
        let (url, mut headers) = (Url::parse("http://localhost:1/x").unwrap(), HeaderMap::new());
        signing.sign("GET", &url, &mut headers, &Digest::of(b"")).unwrap();
        assert!(headers["x-amz-security-token"].is_sensitive());
        let authorization = headers[AUTHORIZATION].to_str().unwrap();
        assert!(authorization.contains("x-amz-date;x-amz-security-token,"), "{authorization}");
        let broken = S3Credentials { session_token: Some("C\n".to_owned()), ..credentials };
        let signing = Signing { credentials: &broken, region: "r", now };
        assert!(signing.sign("GET", &url, &mut headers, &Digest::of(b"")).is_err());
    }
}
