//! Answering a registry's challenge: Basic (RFC 7617) and Docker's token protocol
//! (<https://distribution.github.io/distribution/spec/auth/token/>).

use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::challenge::split_challenges;
use super::{Credential, RegistryErrorKind};
use crate::http::{is_loopback, shorten};

/// What a request does to a repository, which is what a token must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access<'a> {
    /// Nothing with any repository.
    Nothing,
    /// Reads.
    Pull,
    /// Reads and writes.
    Push,
    /// The same, and reads another repository of the registry.
    Mount {
        /// The other repository.
        from: &'a str,
    },
}

impl Access<'_> {
    /// The scopes of a token for this. What the registry itself asks for is asked for, too.
    pub(super) fn scopes(self, repository: &str, challenge: &Challenge) -> Vec<String> {
        let asked = match challenge {
            Challenge::Bearer { scope: Some(scope), .. } => scope.as_str(),
            _ => "",
        };
        let pull = |repository: &str| format!("repository:{repository}:pull");
        let mut scopes = match self {
            Self::Nothing => return Vec::new(),
            // A registry knows best what its repositories are called at its token service.
            Self::Pull if !asked.is_empty() => return vec![asked.to_owned()],
            Self::Pull => vec![pull(repository)],
            Self::Push => vec![pull(repository) + ",push"],
            Self::Mount { from } => vec![pull(repository) + ",push", pull(from)],
        };
        for asked in asked.split_whitespace() {
            if !scopes.iter().any(|scope| scope_covers(scope, asked)) {
                scopes.push(asked.to_owned());
            }
        }
        scopes
    }
}

/// Whether `scope` (`type:name:action,action`) allows all that `asked` does.
fn scope_covers(scope: &str, asked: &str) -> bool {
    let (Some((of, actions)), Some((asked_of, asked_actions))) =
        (scope.rsplit_once(':'), asked.rsplit_once(':'))
    else {
        return scope == asked;
    };
    of == asked_of
        && asked_actions.split(',').all(|asked| actions.split(',').any(|action| action == asked))
}

/// What a `WWW-Authenticate` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and password with each request.
    Basic,
    /// A token from another service.
    Bearer {
        /// The service's address.
        realm: String,
        /// What the service calls the registry.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Picks the strongest known challenge of all `WWW-Authenticate` headers (RFC 9110, section 11.6.1).
    pub(super) fn parse<'a>(
        headers: impl Iterator<Item = &'a HeaderValue>,
    ) -> Result<Self, RegistryErrorKind> {
        let texts: Vec<&str> = headers.filter_map(|header| header.to_str().ok()).collect();
        let challenges: Vec<(String, Vec<(String, String)>)> =
            texts.iter().flat_map(|text| split_challenges(text)).collect();
        let fail =
            |reason| RegistryErrorKind::Challenge { challenge: shorten(&texts.join(", ")), reason };
        if let Some((_, parameters)) = challenges.iter().find(|(scheme, _)| scheme == "bearer") {
            let value = |name: &str| {
                parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
            };
            let realm = value("realm").ok_or_else(|| fail("it names no token service"))?;
            return Ok(Self::Bearer { realm, service: value("service"), scope: value("scope") });
        }
        match challenges.iter().any(|(scheme, _)| scheme == "basic") {
            true => Ok(Self::Basic),
            false => Err(fail("it is neither Basic nor Bearer")),
        }
    }
}

/// How long a login is to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// For what is done now.
    Command,
    /// For later commands, too: the service may give an identity token that is stored instead of the password.
    Lasting,
}

/// A request to a token service, ready to be sent.
///
/// With a password there are two ways to ask: the token protocol's GET, which docker uses, and OAuth's POST, for services that do not
/// know that.
#[derive(Debug)]
pub(super) struct TokenRequest {
    /// What is asked for by GET.
    pub(super) url: Url,
    /// Where a form is sent.
    pub(super) posted_to: Url,
    /// For GET: the name and password to send along.
    pub(super) basic: Option<(String, String)>,
    /// For POST. With a name and password only if GET is not known to the service.
    pub(super) form: Option<String>,
}

/// Who we are to token services.
const CLIENT: &str = "rbuild";

impl TokenRequest {
    /// The request for a token with these scopes. `plain` says that the registry itself is spoken to without
    /// encryption, so that its token service may be too.
    pub(super) fn new(
        challenge: &Challenge,
        scopes: &[String],
        credential: Option<&Credential>,
        plain: bool,
        validity: Validity,
    ) -> Result<Option<Self>, RegistryErrorKind> {
        let Challenge::Bearer { realm, service, .. } = challenge else { return Ok(None) };
        let fail = |reason| RegistryErrorKind::Challenge { challenge: shorten(realm), reason };
        let posted_to = Url::parse(realm).map_err(|_| fail("its token service is no URL"))?;
        let safe = match posted_to.scheme() {
            "https" => true,
            "http" => plain || posted_to.host_str().is_some_and(is_loopback),
            _ => return Err(fail("its token service is not an HTTP address")),
        };
        if !safe && credential.is_some() {
            return Err(fail("its token service would get the login without encryption"));
        }
        // The token protocol repeats the parameter.
        let mut asked: Vec<(&str, &str)> =
            scopes.iter().map(|scope| ("scope", scope.as_str())).collect();
        asked.extend(service.as_deref().map(|service| ("service", service)));
        let mut url = posted_to.clone();
        let (mut basic, mut form) = (None, None);
        let oauth = |pairs: &[(&str, &str)]| {
            // OAuth's form has one list of scopes.
            let listed = scopes.join(" ");
            let mut encoder = posted_to.clone();
            let mut query = encoder.query_pairs_mut();
            query.clear();
            if !listed.is_empty() {
                query.append_pair("scope", &listed);
            }
            query.extend_pairs(service.as_deref().map(|service| ("service", service)));
            query.append_pair("client_id", CLIENT).extend_pairs(pairs);
            drop(query);
            encoder.query().unwrap_or_default().to_owned()
        };
        match credential {
            Some(Credential::IdentityToken(token)) => {
                form = Some(oauth(&[("grant_type", "refresh_token"), ("refresh_token", token)]));
            }
            Some(Credential::Password { name, password }) => {
                asked.push(("account", name));
                let mut pairs =
                    vec![("grant_type", "password"), ("username", name), ("password", password)];
                if validity == Validity::Lasting {
                    asked.extend([("offline_token", "true"), ("client_id", CLIENT)]);
                    pairs.push(("access_type", "offline"));
                }
                url.query_pairs_mut().extend_pairs(asked);
                form = Some(oauth(&pairs));
                basic = Some((name.clone(), password.clone()));
            }
            None => {
                url.query_pairs_mut().extend_pairs(asked);
            }
        }
        Ok(Some(Self { url, posted_to, basic, form }))
    }
}

/// What a token service gave.
#[derive(PartialEq, Eq)]
pub(super) struct Token {
    /// For the registry.
    pub(super) access: String,
    /// For the service, instead of the login.
    pub(super) identity: Option<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads a token service's answer; `None` if there is no token in it.
    pub(super) fn parse(answer: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
            #[serde(default)]
            refresh_token: Option<String>,
        }
        let Answer { token, access_token, refresh_token } = serde_json::from_slice(answer).ok()?;
        let access = [token, access_token].into_iter().find(|token| !token.is_empty())?;
        Some(Self { access, identity: refresh_token.filter(|token| !token.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(headers: &[&str]) -> Result<Challenge, RegistryErrorKind> {
        let headers: Vec<HeaderValue> =
            headers.iter().map(|text| HeaderValue::from_str(text).unwrap()).collect();
        Challenge::parse(headers.iter())
    }

    #[test]
    fn reads_challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        for (headers, expected) in [
            (&["Basic realm=\"x\""][..], Challenge::Basic),
            (
                &["Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:x:pull,push\""],
                bearer("https://a/t", Some("s"), Some("repository:x:pull,push")),
            ),
            (&["bearer realm=r , SERVICE = s"], bearer("r", Some("s"), None)),
            (&["Basic realm=\"a, b\", Bearer realm=\"r\\\"q\""], bearer("r\"q", None, None)),
            (&["Negotiate", "Basic"], Challenge::Basic),
        ] {
            assert_eq!(parse(headers).unwrap(), expected);
        }
        for bad in [&[][..], &["Negotiate abc="], &["Bearer service=x"], &["=,=\"", "\"\\"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn asks_for_tokens() {
        let challenge = parse(&["Bearer realm=\"https://a/t?x=1\",service=\"s&s\""]).unwrap();
        let password = Credential::Password { name: "n".to_owned(), password: "p".to_owned() };
        let scopes = ["repository:a/b:pull".to_owned()];
        let request =
            TokenRequest::new(&challenge, &scopes, Some(&password), false, Validity::Command)
                .unwrap()
                .unwrap();
        assert_eq!(
            request.url.as_str(),
            "https://a/t?x=1&scope=repository%3Aa%2Fb%3Apull&service=s%26s&account=n"
        );
        assert_eq!(request.basic, Some(("n".to_owned(), "p".to_owned())));
        let lasting = TokenRequest::new(&challenge, &[], Some(&password), false, Validity::Lasting);
        let lasting = lasting.unwrap().unwrap();
        assert_eq!(
            lasting.url.as_str(),
            "https://a/t?x=1&service=s%26s&account=n&offline_token=true&client_id=rbuild"
        );
        assert_eq!(
            lasting.form.unwrap(),
            "service=s%26s&client_id=rbuild&grant_type=password&username=n&password=p&access_type=offline"
        );
        let token = Credential::IdentityToken("t/t".to_owned());
        let scopes = ["repository:a:pull".to_owned(), "repository:b:pull".to_owned()];
        let new = |challenge, credential, plain| {
            TokenRequest::new(challenge, &scopes, credential, plain, Validity::Command)
        };
        let request = new(&challenge, Some(&token), false).unwrap().unwrap();
        assert_eq!(request.posted_to.as_str(), "https://a/t?x=1");
        assert_eq!(
            request.form.unwrap(),
            "scope=repository%3Aa%3Apull+repository%3Ab%3Apull&service=s%26s&client_id=rbuild&grant_type=refresh_token&refresh_token=t%2Ft"
        );
        let plain = parse(&["Bearer realm=\"http://a/t\""]).unwrap();
        assert!(new(&plain, Some(&token), false).is_err());
        assert!(new(&plain, Some(&token), true).is_ok());
        assert!(new(&plain, None, false).is_ok());
    }

    #[test]
    fn asks_for_what_the_request_does() {
        let challenge = |scope: &str| Challenge::Bearer {
            realm: String::new(),
            service: None,
            scope: Some(scope.to_owned()).filter(|scope| !scope.is_empty()),
        };
        let (push, mount) = (Access::Push, Access::Mount { from: "c" });
        for (access, asked, expected) in [
            (Access::Pull, "", "repository:a/b:pull"),
            (Access::Pull, "repository:x/a/b:pull", "repository:x/a/b:pull"),
            (push, "", "repository:a/b:pull,push"),
            (push, "repository:a/b:pull", "repository:a/b:pull,push"),
            (push, "repository:a/b:push,pull", "repository:a/b:pull,push"),
            (push, "repository:z:pull", "repository:a/b:pull,push repository:z:pull"),
            (mount, "repository:a/b:push", "repository:a/b:pull,push repository:c:pull"),
            (mount, "registry:*", "repository:a/b:pull,push repository:c:pull registry:*"),
        ] {
            assert_eq!(access.scopes("a/b", &challenge(asked)).join(" "), expected);
        }
    }

    #[test]
    fn finds_the_token() {
        let token = |access: &str, identity: Option<&str>| {
            Some(Token { access: access.to_owned(), identity: identity.map(str::to_owned) })
        };
        for (answer, expected) in [
            (r#"{"token":"a"}"#, token("a", None)),
            (r#"{"access_token":"b","token":"","refresh_token":""}"#, token("b", None)),
            (r#"{"token":"a","refresh_token":null}"#, token("a", None)),
            (r#"{"token":"a","refresh_token":"r"}"#, token("a", Some("r"))),
            ("{}", None),
            ("<html>", None),
        ] {
            assert_eq!(Token::parse(answer.as_bytes()), expected, "{answer}");
        }
    }
}
