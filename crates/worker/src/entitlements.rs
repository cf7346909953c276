//! What a step may ask for beyond the sandbox, and only gets if the user of the build allowed it.

use rbuild_solver::{ExecOp, NetworkMode, Op, SecurityMode};

/// What the user allowed; nothing by default. The names are BuildKit's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `security.insecure`: steps without confinement.
    pub security_insecure: bool,
    /// `network.host`: steps on the host's network.
    pub network_host: bool,
}

/// An operation asks for what was not allowed. The words are BuildKit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entitlement} is not allowed")]
pub struct NotAllowed {
    /// What it asks for.
    pub entitlement: &'static str,
}

impl Entitlements {
    /// Whether an operation gets what it asks for.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn check(&self, op: &Op) -> Result<(), NotAllowed> {
        match op {
            Op::Exec(exec) => self.check_exec(exec),
            Op::Source(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_) => Ok(()),
        }
    }

    pub(crate) fn check_exec(&self, op: &ExecOp) -> Result<(), NotAllowed> {
        if op.security == SecurityMode::Insecure && !self.security_insecure {
            return Err(NotAllowed { entitlement: "security.insecure" });
        }
        if op.network == NetworkMode::Host && !self.network_host {
            return Err(NotAllowed { entitlement: "network.host" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rbuild_solver::{ExecMeta, Mount};

    use super::*;

    fn op(security: SecurityMode, network: NetworkMode) -> Op {
        Op::Exec(Box::new(ExecOp {
            meta: ExecMeta::default(),
            mounts: vec![Mount::root()],
            network,
            security,
            secret_env: Vec::new(),
        }))
    }

    #[test]
    fn insecure_steps_must_be_allowed() {
        let insecure = op(SecurityMode::Insecure, NetworkMode::Default);
        let nothing = Entitlements::default();
        let error = nothing.check(&insecure).unwrap_err();
        assert_eq!(error.to_string(), "security.insecure is not allowed");
        let network = Entitlements { network_host: true, ..nothing };
        assert_eq!(network.check(&insecure), Err(error));
        assert_eq!(Entitlements { security_insecure: true, ..nothing }.check(&insecure), Ok(()));
        for network in [NetworkMode::Default, NetworkMode::None] {
            assert_eq!(nothing.check(&op(SecurityMode::Sandbox, network)), Ok(()));
        }
    }

    #[test]
    fn the_hosts_network_must_be_allowed() {
        let host = op(SecurityMode::Sandbox, NetworkMode::Host);
        let error = Entitlements::default().check(&host).unwrap_err();
        assert_eq!(error.to_string(), "network.host is not allowed");
        let allowed = Entitlements { network_host: true, ..Entitlements::default() };
        assert_eq!(allowed.check(&host), Ok(()));
    }
}
