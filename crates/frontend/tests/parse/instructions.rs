//! The arguments of each instruction.

use super::{check, check_error, check_one, read};
use rbuild_frontend::{Source, parse_trigger};

#[test]
fn from() {
    check_one("from b:1 as Cd", "FROM b:1 AS cd");
    check_one("FROM b@sha256:x", "FROM b@sha256:x");
    check_error("FROM", "FROM requires either one or three arguments");
    check_error("FROM b c d", "FROM requires either one or three arguments");
    check_error("FROM b AS", "FROM requires either one or three arguments");
    for name in ["1a", "a/b", "-a", "é", "$x"] {
        let message = format!(
            "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
        );
        check_error(&format!("FROM b AS {name}"), &message);
    }
}

#[test]
fn commands() {
    check_one("RUN", "RUN sh ");
    check_one("RUN  echo  \"a  b\"  ", "RUN sh echo  \"a  b\"");
    check_one("CMD [\"a\", \"b c\"]", "CMD exec [a] [b c]");
    check_one("CMD []", "CMD exec ");
    check_one("CMD", "CMD sh ");
    check_one("CMD ['a']", "CMD sh ['a']");
    check_one("ENTRYPOINT [\"a\"] b", "ENTRYPOINT sh [\"a\"] b");
    check_one("ENTRYPOINT [ \\\n \"a\", \\\n \"b\" ]", "ENTRYPOINT exec [a] [b]");
    check_one("SHELL [\"/bin/bash\", \"-c\"]", "SHELL [/bin/bash] [-c]");
    check_error("RUN [\"a\", 1]", "only string type is allowed in JSON arrays");
    check_error("COPY [null, \"b\"]", "only string type is allowed in JSON arrays");
    check_error("SHELL", "SHELL requires at least one argument");
    check_error("SHELL []", "SHELL requires at least one argument");
    check_error("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form");
}

#[test]
fn pairs() {
    check_one("ENV a=1 b=\"x y\" c=x\\ y d=", "ENV [a]=[1] [b]=[\"x y\"] [c]=[x\\ y] [d]=[]");
    check_one("ENV a=b=c 'd'=e", "ENV [a]=[b=c] ['d']=[e]");
    check_one("ENV a  b  c=d ", "ENV [a]=[b  c=d] legacy");
    check_one("LABEL a=1 \\\n  b=2", "LABEL [a]=[1] [b]=[2]");
    check_one("LABEL a b", "LABEL [a]=[b] legacy");
    check_error("ENV", "ENV requires at least one argument");
    check_error("ENV a", "ENV must have two arguments");
    check_error(
        "ENV a=1 b",
        "Syntax error - can't find = in \"b\". Must be of the form: name=value",
    );
    check_error("LABEL =b", "LABEL names can not be blank");
}

#[test]
fn arguments() {
    check_one("ARG a=1 b c=\"x y\" d=", "ARG [a]=[1] [b] [c]=[\"x y\"] [d]=[]");
    check_error("ARG", "ARG requires at least one argument");
    check_error("ARG =b", "ARG names can not be blank");
}

#[test]
fn transfers() {
    check_one("COPY a b  c/", "COPY [a] [b] -> [c/]");
    check_one("COPY [\"a b\", \"c\"]", "COPY [a b] -> [c]");
    check_one("COPY [a] b", "COPY [[a]] -> [b]");
    check_one("ADD https://x/y /z", "ADD [https://x/y] -> [/z]");
    for instruction in ["COPY", "COPY a", "COPY [\"a\"]", "COPY []"] {
        let message = "COPY requires at least two arguments, but only one was provided. Destination could not be determined";
        check_error(instruction, message);
    }
}

#[test]
fn words() {
    check_one("EXPOSE 80 443/tcp $p 1-2/UDP", "EXPOSE [80] [443/tcp] [$p] [1-2/UDP]");
    check_one("VOLUME /a /b", "VOLUME [/a] [/b]");
    check_one("VOLUME [\"/a b\", \" /c \"]", "VOLUME [/a b] [/c]");
    check_one("USER a b", "USER a b");
    check_one("WORKDIR /a b  ", "WORKDIR /a b");
    check_one("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGTERM");
    check_one("MAINTAINER A B <c>", "MAINTAINER A B <c>");
    check_error("EXPOSE", "EXPOSE requires at least one argument");
    check_error("VOLUME", "VOLUME requires at least one argument");
    check_error("VOLUME []", "VOLUME requires at least one argument");
    check_error("VOLUME [\" \"]", "VOLUME specified can not be an empty string");
    for keyword in ["USER", "WORKDIR", "STOPSIGNAL", "MAINTAINER"] {
        check_error(keyword, &format!("{keyword} requires exactly one argument"));
    }
}

#[test]
fn healthcheck() {
    check_one("HEALTHCHECK NONE", "HEALTHCHECK NONE");
    check_one("HEALTHCHECK cmd curl x", "HEALTHCHECK sh curl x");
    check_one(
        "HEALTHCHECK --interval=1m30s --timeout=0 --start-period=1.5s --start-interval=1ms --retries=3 CMD [\"a\"]",
        "HEALTHCHECK --interval=90s --timeout=0ns --start-period=1.5s --start-interval=1ms --retries=3 exec [a]",
    );
    check_error("HEALTHCHECK", "HEALTHCHECK requires at least one argument");
    check_error("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments");
    check_error("HEALTHCHECK FOO x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)");
    check_error("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD");
    check_error("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD");
    check_error(
        "HEALTHCHECK --interval=1us CMD x",
        "Interval \"interval\" cannot be less than 1ms",
    );
    check_error("HEALTHCHECK --timeout=-1s CMD x", "Interval \"timeout\" cannot be less than 1ms");
    check_error("HEALTHCHECK --timeout=5 CMD x", "time: missing unit in duration \"5\"");
    check_error("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)");
    check_error("HEALTHCHECK --retries=x CMD x", "strconv.ParseInt: parsing \"x\": invalid syntax");
    check_error(
        "HEALTHCHECK --retries=99999999999 CMD x",
        "strconv.ParseInt: parsing \"99999999999\": value out of range",
    );
}

#[test]
fn onbuild() {
    check_one("ONBUILD  RUN a \\\n  b ", "ONBUILD \"RUN a   b \" -> RUN sh a   b");
    check_one(
        "onbuild copy --from=x a b",
        "ONBUILD \"copy --from=x a b\" -> COPY --from=x [a] -> [b]",
    );
    check_error("ONBUILD", "ONBUILD requires at least one argument");
    check_error("ONBUILD onbuild RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    check_error("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger");
    check_error("ONBUILD MAINTAINER a", "MAINTAINER isn't allowed as an ONBUILD trigger");
    check_error("ONBUILD --x RUN a", "unknown flag: --x");
    check_error("ONBUILD RUN [1]", "only string type is allowed in JSON arrays");
    // What fails only in images built on this one is a warning.
    let (_, dockerfile) = read("FROM a\nONBUILD RNU b\n");
    assert!(!dockerfile.has_errors());
    assert_eq!(dockerfile.diagnostics[0].message, "unknown instruction: RNU (did you mean RUN?)");
}

#[test]
fn triggers_are_read_again_from_the_image_config() {
    let (_, dockerfile) = read("FROM a\nONBUILD RUN <<EOF cat\n\tx\nEOF\n");
    let rbuild_frontend::Instruction::Onbuild(onbuild) = &dockerfile.statements[1].instruction
    else {
        panic!()
    };
    let trigger = parse_trigger(&Source::new("ONBUILD", &onbuild.expression).unwrap());
    assert!(trigger.diagnostics.is_empty(), "{:?}", trigger.diagnostics);
    assert_eq!(super::show(&trigger.statements[0]), "RUN sh <<EOF cat <<EOF \"\\tx\\n\"");
    for text in ["", "RUN a\nRUN b", "# c"] {
        let trigger = parse_trigger(&Source::new("ONBUILD", text).unwrap());
        assert_eq!(
            trigger.diagnostics[0].message, "onbuild trigger should be a single expression",
            "{text}"
        );
    }
}

#[test]
fn unknown_instructions() {
    check(
        "FROM a\nFOO b\n",
        &[
            "FROM a",
            "? b",
            "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
        ],
    );
    check_error("expsoe 80", "unknown instruction: expsoe (did you mean EXPOSE?)");
    check_error("<<<<<<< HEAD", "unknown instruction: <<<<<<<");
    let long = "x".repeat(5_000);
    check_error(&long, &format!("unknown instruction: {}...", "x".repeat(80)));
}
