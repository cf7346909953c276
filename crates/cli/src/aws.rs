//! What AWS's variables and files say, as its own tools read them.
//!
//! ```text
//! ~/.aws/credentials     [NAME]            key = value
//! ~/.aws/config          [profile NAME]    key = value, or [default]
//! ```
//!
//! Keys that have to be asked for somewhere (of a role, a container, a machine, a program) are not: what such a service answers depends on
//! where a build runs, and a build that waits for one that is not there is worse than one that says so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rbuild_cache::S3Credentials;

use crate::error::{CommandError, Kind};

/// Keys of a profile, and variables, that say where to ask for credentials.
const ELSEWHERE: [&str; 7] = [
    "role_arn",
    "credential_process",
    "credential_source",
    "source_profile",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
];
const ELSEWHERE_VARIABLES: [&str; 3] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// What is said beside the flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct AwsSettings {
    pub(crate) bucket: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
    /// A file with authorities to trust.
    pub(crate) authorities: Option<PathBuf>,
    /// Who asks. To be had from [`AwsSettings::credentials`].
    pub(crate) key: Option<S3Credentials>,
    /// What would have to be asked for credentials.
    pub(crate) elsewhere: Option<String>,
}

type Profile = BTreeMap<String, String>;

impl AwsSettings {
    /// Reads variables and files.
    pub(crate) fn read(
        variable: impl Fn(&str) -> Option<String>,
        home: Option<&Path>,
    ) -> Result<Self, CommandError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let wanted = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
        let name = wanted.as_deref().unwrap_or("default");
        let file = |named: &str, usual: &str| {
            let usual = || home.map(|home| home.join(".aws").join(usual));
            variable(named).map(PathBuf::from).or_else(usual)
        };
        let mut profile = Profile::new();
        let mut is_there = false;
        let config = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        for (path, section) in [
            (file("AWS_CONFIG_FILE", "config"), config.as_str()),
            (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name),
        ] {
            let Some(path) = path else { continue };
            if let Some(found) = read_profile(&path, section)? {
                is_there = true;
                profile.extend(found);
            }
        }
        if let Some(name) = wanted.as_deref().filter(|_| !is_there) {
            let message = format!("there is no profile `{name}` of AWS, which AWS_PROFILE names");
            return Err(CommandError::new(Kind::Environment, message)
                .hint("profiles are in ~/.aws/config and ~/.aws/credentials"));
        }
        let set = |names: &[&str], key: &str| {
            names.iter().find_map(|name| variable(name)).or_else(|| profile.get(key).cloned())
        };
        let elsewhere = || {
            let key = ELSEWHERE.iter().find(|key| profile.contains_key(**key));
            let key = key.map(|key| format!("`{key}` of the profile `{name}`"));
            let named = ELSEWHERE_VARIABLES.iter().find(|name| variable(name).is_some());
            key.or_else(|| named.map(|name| format!("`{name}`")))
        };
        let key = credentials(&variable, &profile, name)?;
        Ok(Self {
            bucket: variable("AWS_BUCKET"),
            region: set(&["AWS_REGION", "AWS_DEFAULT_REGION"], "region"),
            endpoint: set(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"], "endpoint_url"),
            authorities: set(&["AWS_CA_BUNDLE"], "ca_bundle").map(PathBuf::from),
            elsewhere: if key.is_none() { elsewhere() } else { None },
            key,
        })
    }

    /// Who asks; `None` for nobody in particular.
    pub(crate) fn credentials(&self) -> Result<Option<S3Credentials>, CommandError> {
        match &self.elsewhere {
            None => Ok(self.key.clone()),
            Some(place) => Err(CommandError::new(
                Kind::Environment,
                format!("the credentials of AWS come from {place}, which rbuild does not ask"),
            )
            .hint("eval \"$(aws configure export-credentials --format env)\" asks it, and sets variables that rbuild reads")),
        }
    }
}

fn credentials(
    variable: &impl Fn(&str) -> Option<String>,
    profile: &Profile,
    name: &str,
) -> Result<Option<S3Credentials>, CommandError> {
    let own = |key: &str| variable(&key.to_uppercase());
    let of_profile = |key: &str| profile.get(key).cloned();
    let complete = |take: &dyn Fn(&str) -> Option<String>, place: &str| match (
        take("aws_access_key_id"),
        take("aws_secret_access_key"),
    ) {
        (None, None) => Ok(None),
        (Some(access_key_id), Some(secret_access_key)) => {
            let session_token = take("aws_session_token");
            Ok(Some(S3Credentials { access_key_id, secret_access_key, session_token }))
        }
        _ => Err(CommandError::new(
            Kind::Environment,
            format!(
                "{place} of AWS has one of access key id and secret access key, and not the other"
            ),
        )),
    };
    match complete(&own, "the environment")? {
        Some(credentials) => Ok(Some(credentials)),
        None => complete(&of_profile, &format!("the profile `{name}`")),
    }
}

/// The keys of a section; `None` if there is none, or no such file.
fn read_profile(path: &Path, section: &str) -> Result<Option<Profile>, CommandError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(section_of(&String::from_utf8_lossy(&bytes), section)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => {
            let message = format!("cannot read `{}`", path.display());
            Err(CommandError::caused(Kind::Environment, message, error))
        }
    }
}

fn section_of(text: &str, section: &str) -> Option<Profile> {
    let (mut found, mut is_in_it) = (None, false);
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or(line);
        // What is indented belongs to the key before it, and is of no use here.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(name) = line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let mut words = name.split_whitespace();
            is_in_it = words.by_ref().eq(section.split_whitespace());
            if is_in_it {
                found.get_or_insert_with(Profile::new);
            }
        } else if let (true, Some((key, value)), Some(found)) =
            (is_in_it, line.split_once('='), &mut found)
            && !value.trim().is_empty()
        {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        files: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> Result<AwsSettings, CommandError> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        for (name, text) in files {
            std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        }
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        AwsSettings::read(variable, Some(home.path()))
    }

    fn key(settings: &AwsSettings) -> Option<String> {
        settings.credentials().unwrap().map(|credentials| credentials.access_key_id)
    }

    const CREDENTIALS: &str = "[default]\naws_access_key_id = A\naws_secret_access_key=B=/x\n\n\
        [ci]\naws_access_key_id=C # mine\naws_secret_access_key=D\naws_session_token=E\n";
    const CONFIG: &str = "# comment\n[default]\nregion = eu-west-1\ns3 =\n  region = no\n[profile ci]\nregion=r\n\
        endpoint_url = http://minio:9000\n[profile role]\nrole_arn = arn:x\n[profile half]\naws_access_key_id=x\n";

    #[test]
    fn variables_come_before_profiles() {
        let files = [("credentials", CREDENTIALS), ("config", CONFIG)];
        let plain = settings(&files, &[]).unwrap();
        assert_eq!(
            (key(&plain).as_deref(), plain.region.as_deref()),
            (Some("A"), Some("eu-west-1"))
        );
        assert_eq!(plain.key.unwrap().secret_access_key, "B=/x");
        let ci = settings(&files, &[("AWS_PROFILE", "ci"), ("AWS_DEFAULT_REGION", "q")]).unwrap();
        assert_eq!((key(&ci).as_deref(), ci.region.as_deref()), (Some("C"), Some("q")));
        assert_eq!(ci.endpoint.as_deref(), Some("http://minio:9000"));
        assert_eq!(ci.key.unwrap().session_token.as_deref(), Some("E"));
        let own =
            [("AWS_ACCESS_KEY_ID", "V"), ("AWS_SECRET_ACCESS_KEY", "W"), ("AWS_PROFILE", "role")];
        let own = settings(&files, &own).unwrap();
        assert_eq!(key(&own).as_deref(), Some("V"));
        let none = settings(&[], &[("AWS_ACCESS_KEY_ID", ""), ("AWS_PROFILE", "")]).unwrap();
        assert_eq!((key(&none), none.region), (None, None));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let files = [("credentials", CREDENTIALS), ("config", CONFIG)];
        for (variables, expected) in [
            (&[("AWS_PROFILE", "none")][..], "there is no profile `none`"),
            (&[("AWS_PROFILE", "role")], "come from `role_arn` of the profile `role`"),
            (&[("AWS_PROFILE", "half")], "the profile `half` of AWS has one of"),
            (&[("AWS_ACCESS_KEY_ID", "A")], "the environment of AWS has one of"),
            (&[("AWS_CONFIG_FILE", "/proc/self/mem")], "cannot read `/proc/self/mem`"),
        ] {
            let error = settings(&files, variables).and_then(|settings| settings.credentials());
            let reason = error.unwrap_err().reason();
            assert!(reason.contains(expected), "{reason}");
        }
        let error = settings(&[], &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/x")]).unwrap().credentials();
        assert!(error.unwrap_err().reason().contains("`AWS_WEB_IDENTITY_TOKEN_FILE`"));
    }
}
