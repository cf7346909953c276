//! Keys as an agent: what is said to the two requests that there are (draft-ietf-sshm-ssh-agent).

use super::SshKeyError;
use super::key::SshKey;
use super::wire::{Reader, put_string};

/// Asks for the list of keys.
pub(crate) const REQUEST_IDENTITIES: u8 = 11;
/// Asks for a signature.
pub(crate) const SIGN_REQUEST: u8 = 13;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_RESPONSE: u8 = 14;

/// Private keys that sign for steps and for git. They are in no key of the cache and no message, and this shows none.
#[derive(Default)]
pub struct SshKeys {
    keys: Vec<SshKey>,
}

impl SshKeys {
    /// Reads a key file and adds it.
    pub fn add(&mut self, text: &[u8]) -> Result<(), SshKeyError> {
        self.keys.push(SshKey::parse(text)?);
        Ok(())
    }

    /// The answer to a message, both without their lengths; `None` for what is not done.
    pub(crate) fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let (kind, rest) = message.split_first()?;
        match *kind {
            REQUEST_IDENTITIES => Some(self.list()),
            SIGN_REQUEST => self.sign(Reader(rest)),
            _ => None,
        }
    }

    fn list(&self) -> Vec<u8> {
        let mut answer = vec![IDENTITIES_ANSWER];
        let count = u32::try_from(self.keys.len()).expect("keys are few");
        answer.extend(count.to_be_bytes());
        for key in &self.keys {
            put_string(&mut answer, &key.public);
            put_string(&mut answer, &key.comment);
        }
        answer
    }

    fn sign(&self, mut request: Reader<'_>) -> Option<Vec<u8>> {
        let (public, data, flags) = (request.string()?, request.string()?, request.number()?);
        let key = self.keys.iter().find(|key| key.public == public)?;
        let mut answer = vec![SIGN_RESPONSE];
        put_string(&mut answer, &key.sign(data, flags)?);
        Some(answer)
    }
}

impl std::fmt::Debug for SshKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshKeys({})", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use rbuild_cache::Store;

    use super::*;
    use crate::agent::{Agent, SocketOwner};
    use crate::secrets::SshAgent;

    /// What OpenSSH's own programs say of the agent.
    #[tokio::test]
    async fn openssh_verifies_what_the_keys_sign() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = SshKeys::default();
        let mut publics = Vec::new();
        for (name, how) in [
            ("ed25519", &["-t", "ed25519"][..]),
            ("rsa", &["-t", "rsa", "-b", "2048"]),
            ("rsa-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
            ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
            ("p256", &["-t", "ecdsa", "-b", "256"]),
            ("p384", &["-t", "ecdsa", "-b", "384"]),
            ("p256-pkcs8", &["-t", "ecdsa", "-b", "256", "-m", "PKCS8"]),
        ] {
            let path = dir.path().join(name);
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-N", "", "-C", name, "-f"]).arg(&path).args(how);
            assert!(keygen.status().unwrap().success(), "{name}");
            keys.add(&std::fs::read(&path).unwrap()).unwrap();
            publics.push(path.with_extension("pub"));
        }
        let store = Store::open(&dir.path().join("store")).unwrap();
        let owner = SocketOwner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode: 0o600,
        };
        let agent = SshAgent::Keys(Arc::new(keys));
        let (agent, _file) = Agent::new(&agent, store.layers.begin().unwrap(), owner).unwrap();
        let ssh_add = |args: Vec<std::ffi::OsString>| {
            let mut command = tokio::process::Command::new("ssh-add");
            command.args(args).env("SSH_AUTH_SOCK", agent.path());
            command.stdin(Stdio::null()).output()
        };
        let asking = async {
            let listed = ssh_add(vec!["-L".into()]).await.unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            for public in &publics {
                let text = std::fs::read_to_string(public).unwrap();
                let words: Vec<&str> = text.split(' ').take(2).collect();
                assert!(listed.contains(&words.join(" ")), "{}", public.display());
            }
            assert!(listed.contains(" ed25519\n"), "{listed}");
            std::fs::write(dir.path().join("text"), "what is signed").unwrap();
            for public in &publics {
                // Away from its private half, so that the agent has to sign.
                let alone = dir.path().join("alone");
                std::fs::copy(public, &alone).unwrap();
                let sign = "ssh-keygen -q -Y sign -n test -f alone < text > signature && \
                            ssh-keygen -q -Y check-novalidate -n test -s signature < text";
                let mut command = tokio::process::Command::new("sh");
                command.args(["-c", sign]).env("SSH_AUTH_SOCK", agent.path());
                let signed = command.current_dir(dir.path()).output().await.unwrap();
                let said = String::from_utf8_lossy(&signed.stderr);
                assert!(signed.status.success(), "{}: {said}", public.display());
            }
            // ssh-add still asks RSA for SHA-1.
            let others = publics.iter().filter(|it| !it.to_string_lossy().contains("/rsa"));
            let tested = [vec!["-T".into()], others.map(Into::into).collect()].concat();
            let tested = ssh_add(tested).await.unwrap();
            assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
            // Keys can neither be taken away nor be added.
            assert!(!ssh_add(vec!["-D".into()]).await.unwrap().status.success());
        };
        tokio::select! {
            () = asking => {}
            ended = agent.serve() => panic!("{ended:?}"),
        }
    }

    #[test]
    fn what_is_no_request_is_not_answered() {
        let keys = SshKeys::default();
        assert_eq!(keys.answer(&[11]), Some(vec![12, 0, 0, 0, 0]));
        for message in [&[][..], &[13], &[13, 0, 0, 0, 9], &[17], &[13, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(keys.answer(message), None);
        }
    }
}
