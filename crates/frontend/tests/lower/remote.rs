//! ADD of addresses, and contexts that are fetched.

use rbuild_frontend::{BuildOptions, GitUrl, NamedContext, RemoteContext};

use super::build::{build, check, check_errors, check_with, history, options};

fn git(url: &str) -> RemoteContext {
    RemoteContext::git(&GitUrl::parse(url).unwrap().unwrap())
}

#[test]
fn files_by_http() {
    check(
        "FROM scratch\nADD --chown=1:2 --chmod=640 https://x.example/a%20b?c https://x.example/ /d/\n",
        r#"
        0 https://x.example/a%20b?c
            https://x.example/a%20b?c http.filename=a b
        1 https://x.example/
            https://x.example/ http.filename=__unnamed__
        2 [1/1] ADD --chown=1:2 --chmod=640 https://x.example/a%20b?c https://x.example/ /d/
            on - copy 0:/a b -> /d/ owner 1:2 mode 640 plain
            on ^ copy 1:/__unnamed__ -> /d/ owner 1:2 mode 640 plain
        = 2
        "#,
    );
    let sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    check(
        &format!(
            "FROM scratch\nARG S={sum}\nADD --checksum=sha256:$S --unpack=true http://x/y.tar y\n"
        ),
        &format!(
            r#"
        0 http://x/y.tar
            http://x/y.tar http.checksum=sha256:{sum} http.filename=y.tar
        1 [1/1] ADD --checksum=sha256:{sum} --unpack=true http://x/y.tar y
            on - copy 0:/y.tar -> /y plain unpack
        = 1
        "#
        ),
    );
}

#[test]
fn repositories() {
    check(
        "FROM scratch\nADD --keep-git-dir=true --checksum=abcd --exclude=*.c git@h:a/b.git#v1:d /x\nADD a https://h/c.git?submodules=false /y/\n",
        r#"
        0 git@h:a/b.git#v1:d
            git://h/a/b.git#v1:d git.checksum=abcd git.fullurl=git@h:a/b.git git.keepgitdir=true
        1 [1/2] ADD --keep-git-dir=true --checksum=abcd --exclude=*.c git@h:a/b.git#v1:d /x
            on - copy 0:/ -> /x contents exclude *.c
        2 https://h/c.git
            git://h/c.git git.fullurl=https://h/c.git git.skipsubmodules=true
        3 [internal] load build context
            local://context local.followpaths=["a"]
        4 [2/2] ADD a https://h/c.git?submodules=false /y/
            on 1 copy 3:/a -> /y/ unpack
            on ^ copy 2:/ -> /y/ contents
        = 4
        "#,
    );
}

#[test]
fn passwords_stay_out_of_the_history() {
    let built = build("FROM scratch\nADD https://me:secret@h/f https://me@h/g.git /x/\n");
    assert_eq!(
        history(&built),
        ["ADD https://xxxxx:xxxxx@h/f https://xxxxx@h/g.git /x/ # buildkit"]
    );
    let names: Vec<_> = built.graph.vertices().iter().map(|v| v.meta.name.as_str()).collect();
    assert_eq!(names[..2], ["https://xxxxx:xxxxx@h/f", "https://xxxxx@h/g.git"]);
}

#[test]
fn what_contradicts_itself() {
    check_errors(
        "FROM scratch\nADD --checksum=sha256:0 https://x/y /\nADD --checksum=x git@h:r /\nADD --checksum=ab git@h:r?commit=cd /\nADD --keep-git-dir=false git@h:r?keep-git-dir=1 /\nADD git@h:r?x=1 /\nADD --checksum=ab git@h:r git@h:s /\n",
        &[
            "line 2: invalid checksum \"sha256:0\": digest `sha256:0` does not have the lower-case hex digits of its algorithm <sha256:0>",
            "line 3: invalid checksum \"x\": it is no id of a commit <x>",
            "line 4: checksum mismatch \"cd\" != \"ab\" <ab>",
            "line 5: inconsistent keep-git-dir configuration <git@h:r?keep-git-dir=1>",
            "line 6: failed to parse git ref: unexpected query \"x\" <git@h:r?x=1>",
            "line 7: checksum can't be specified for multiple sources <ab>",
        ],
    );
}

#[test]
fn contexts_that_are_fetched() {
    let lib = NamedContext::Remote(RemoteContext::http("https://h/lib.tar", true));
    let one = NamedContext::Remote(RemoteContext::http("https://h/one", false));
    let given = BuildOptions {
        context: Some(git("https://h/c.git#main")),
        context_ignore: Vec::new(),
        contexts: [("lib".to_owned(), lib), ("one".to_owned(), one)].into(),
        ..options()
    };
    check_with(
        "FROM lib\nCOPY a b /x/\nCOPY c /y\nCOPY --from=lib d /\nCOPY --from=one context /\n",
        &given,
        r#"
        0 [context lib] https://h/lib.tar
            https://h/lib.tar http.filename=context
        1 [context lib] extract
            on - copy 0:/context -> / plain unpack
        2 [internal] load git source https://h/c.git#main
            git://h/c.git#main git.fullurl=https://h/c.git
        3 [stage-0 1/5] COPY a b /x/
            on 1 copy 2:/a -> /x/
            on ^ copy 2:/b -> /x/
        4 [stage-0 2/5] COPY c /y
            on 3 copy 2:/c -> /y
        5 [stage-0 3/5] COPY --from=lib d /
            on 4 copy 1:/d -> /
        6 [context one] https://h/one
            https://h/one http.filename=context
        7 [stage-0 4/5] COPY --from=one context /
            on 5 copy 6:/context -> /
        = 7
        "#,
    );
}
