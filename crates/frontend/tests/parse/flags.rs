//! Flags before an instruction's arguments.

use super::{check_error, check_one};

#[test]
fn of_every_instruction() {
    check_one("FROM --platform=$X b AS c", "FROM --platform=$X b AS c");
    check_one(
        "COPY --from=b --chown=1:2 --chmod=0644 --link --parents=false --exclude=*.a --exclude=b x /y",
        "COPY --from=b --chown=1:2 --chmod=0644 --link=true --parents=false --exclude=*.a --exclude=b [x] -> [/y]",
    );
    check_one(
        "ADD --chown=1 --chmod=u+x --link=True --keep-git-dir=true --checksum=sha256:x --unpack=FALSE --exclude=z x y",
        "ADD --chown=1 --chmod=u+x --link=true --keep-git-dir=true --checksum=sha256:x --unpack=false --exclude=z [x] -> [y]",
    );
    check_one(
        "RUN --network=none --security=insecure --device=a --device=b,required c --d",
        "RUN --network=None --security=Insecure --device=a --device=b,required sh c --d",
    );
}

#[test]
fn where_they_end() {
    check_one("RUN -- --x", "RUN sh --x");
    check_one("RUN x --mount=y", "RUN sh x --mount=y");
    check_one("RUN -x --mount=y", "RUN sh -x --mount=y");
    check_one("COPY --link=true -- --a b", "COPY --link=true [--a] -> [b]");
    check_one("COPY --chown=a\\ b x y", "COPY --chown=a b [x] -> [y]");
    check_one("COPY --chown='a \"b' x y", "COPY --chown=a \"b [x] -> [y]");
    check_one("RUN \\\n --network=host \\\n x", "RUN --network=Host sh x");
}

#[test]
fn errors() {
    check_error("COPY --chwon=a x y", "unknown flag: --chwon (did you mean chown?)");
    check_error("COPY --zzz x y", "unknown flag: --zzz");
    check_error("USER --x y", "unknown flag: --x");
    check_error("CMD --from=x y", "unknown flag: --from");
    check_error("COPY --chown=a --chown=b x y", "duplicate flag specified: --chown");
    check_error("COPY --link --link x y", "duplicate flag specified: --link");
    check_error("COPY --chown x y", "missing a value on flag: --chown");
    check_error("COPY --exclude x y", "missing a value on flag: --exclude");
    check_error("COPY --link= x y", "missing a value on flag: --link");
    check_error("COPY --link=1 x y", "expecting boolean value for flag --link, not: 1");
    check_error("RUN --network=hots x", "invalid network mode \"hots\" (did you mean host?)");
    check_error("RUN --security=x y", "security \"x\" is not valid");
}

#[test]
fn those_that_nobody_reads_have_no_effect() {
    for (instruction, expected) in [
        ("ARG --x=1 a=2", "ARG [a]=[2]"),
        ("STOPSIGNAL --x 9", "STOPSIGNAL 9"),
        ("HEALTHCHECK --interval=1x --y none", "HEALTHCHECK NONE"),
    ] {
        let (_, dockerfile) = super::read(&format!("FROM a\n{instruction}\n"));
        let found = dockerfile.diagnostics.iter().map(|found| (found.code, found.is_error()));
        assert!(found.clone().count() > 0, "{instruction}");
        assert!(
            found.clone().all(|found| found == ("flag-without-effect", false)),
            "{instruction}"
        );
        assert_eq!(super::show(&dockerfile.statements[1]), expected);
    }
    check_error("HEALTHCHECK --x CMD y", "unknown flag: --x");
}
