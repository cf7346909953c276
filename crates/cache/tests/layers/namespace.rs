//! Running a privileged test: as root, and again as root of a user namespace.

use std::process::Command;

use rbuild_cache::OverlayXattrs;

/// Tells a test that it has been started inside a user namespace.
const INSIDE: &str = "RBUILD_TEST_IN_USER_NAMESPACE";

/// Calls `test` with the namespace in which overlayfs keeps its attributes: as root here, and, in a second
/// process of this binary, as an ordinary user would. `name` is the test's full name.
#[expect(clippy::print_stderr, reason = "says what is skipped")]
pub(crate) fn privileged(name: &str, test: fn(OverlayXattrs)) {
    if std::env::var_os(INSIDE).is_some() {
        return test(OverlayXattrs::User);
    }
    if rustix::process::geteuid().is_root() {
        test(OverlayXattrs::Trusted);
    } else {
        eprintln!("SKIPPED {name} as root: it is not run by root");
    }
    let probe =
        Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED {name} in a user namespace: {probe:?}");
        return;
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "in a user namespace:\n{text}");
}
