//! Rules 22, 23 and 43: RUN.

use super::world::{
    build, history, listing, new_layers, refusal, run, text, with_base, with_image,
};

#[test]
fn privileged_rule_22_mount_points_leave_no_trace() {
    let fixture = with_base(
        "FROM busybox\n\
         RUN true\n\
         RUN [\"/bin/true\"]\n\
         RUN grep -c buildkitsandbox /etc/hosts > /seen\n\
         RUN ! (echo x >> /etc/hosts) 2> /dev/null && ! (echo x >> /etc/resolv.conf) 2> /dev/null\n",
    );
    let image = build(&fixture, &[]);
    let [first, second, third, last] = new_layers(&image) else { panic!("{:?}", image.layers) };
    // A step that changes nothing makes a layer with nothing in it.
    for layer in [first, second, last] {
        assert_eq!(listing(layer), [""; 0]);
    }
    assert_eq!(third.paths(), ["seen"]);
    assert_eq!(
        history(&image, 1)[..2],
        ["+ RUN /bin/sh -c true # buildkit", "+ RUN /bin/true # buildkit"]
    );
}

#[test]
fn privileged_rule_23_run_is_kept() {
    let fixture = with_base(
        "FROM busybox\n\
         RUN mkdir -p /run/app && echo 1 > /run/app/pid && echo 2 > /dev/shm/x && echo 3 > /dev/x; ! echo 4 > /sys/x; true\n\
         RUN cat /run/app/pid > /seen; ls /dev/shm >> /seen\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(image.layers[1].paths(), ["run/", "run/app/", "run/app/pid"]);
    assert_eq!(text(&image, "seen"), "1\n");
}

#[test]
fn privileged_a_step_makes_its_directory() {
    let image = rbuild_testdata::busybox_image()
        .configured(|config| config["config"]["WorkingDir"] = "/not/there".into());
    let fixture = with_image("FROM base\nUSER 65534\nRUN pwd > /tmp/seen\n", &image);
    let image = build(&fixture, &[]);
    assert_eq!(text(&image, "tmp/seen"), "/not/there\n");
    let made: Vec<String> =
        listing(&image.layers[1]).into_iter().filter(|entry| entry.contains("not/")).collect();
    assert_eq!(made, ["d0755 65534:65534 0 not/", "d0755 65534:65534 0 not/there/"]);
}

#[test]
fn privileged_rule_43_failures() {
    let fixture = with_base(
        "FROM busybox AS slow\n\
         RUN sleep 1000\n\
         FROM busybox AS fails\n\
         RUN echo said; exit 42\n\
         FROM busybox\n\
         COPY --from=slow / /slow\n\
         COPY --from=fails / /fails\n",
    );
    // It would take a quarter of an hour if the other stage was waited for.
    for _ in 0..2 {
        let error = run(&fixture, "store", &["-o", "type=cacheonly"]).fails(1);
        for part in [
            "process \"/bin/sh -c echo said; exit 42\" did not complete successfully: exit code: 42",
            "0.", // The time of the line of output, which is repeated below.
            "said",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("CACHED [fails"), "{error}");
    }
    let error = refusal(&fixture, "FROM busybox\nRUN [\"/nothing\"]\n");
    assert!(error.contains("/nothing"), "{error}");
}
