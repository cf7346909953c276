//! The same inputs give the same image, and `SOURCE_DATE_EPOCH` reaches everything that is new.

use rbuild_testdata::busybox_layer;
use rbuild_testdata::validate::ValidImage;

use super::world::{BASE_CREATED, BASE_TIME, age, build, build_in, history, with_base};

fn digests(image: &ValidImage) -> Vec<String> {
    image.layers.iter().map(|layer| layer.digest.clone()).collect()
}

#[test]
fn privileged_two_stores_make_the_same_layers() {
    let fixture = with_base(
        "FROM base\n\
         COPY dir /dir\n\
         COPY --from=base /etc/passwd /etc/group /dir/\n\
         COPY --link dir/a* /linked\n",
    );
    for index in 0..50 {
        fixture.write(&format!("dir/file{index}"), index.to_string());
        age(&fixture.context().join(format!("dir/file{index}")));
    }
    fixture.write("dir/a", "1".repeat(1 << 20));
    age(&fixture.context().join("dir/a"));
    age(&fixture.context().join("dir"));
    let (one, two) = (build_in(&fixture, "one", &[]), build_in(&fixture, "two", &[]));
    // Where only times of sources are involved; the others made folders at some moment.
    assert_eq!(digests(&one)[..2], digests(&two)[..2]);
    assert_eq!(digests(&one)[3], digests(&two)[3]);
}

#[test]
fn privileged_source_date_epoch() {
    let fixture = with_base(
        "FROM busybox\n\
         COPY dir /dir\n\
         WORKDIR /made\n\
         RUN mkdir /fresh && echo 1 > /fresh/file && touch -d @1000 /fresh/old && rm /etc/group\n\
         COPY <<EOF /doc\nx\nEOF\n\
         LABEL a=b\n",
    );
    fixture.write("dir/file", "1");
    const EPOCH: u64 = 1_500_000_000;
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let args = ["--build-arg", epoch.as_str()];
    let (one, two) = (build_in(&fixture, "one", &args), build_in(&fixture, "two", &args));
    assert_eq!(one.manifest_digest, two.manifest_digest);
    assert_eq!(one.config["created"], "2017-07-14T02:40:00Z");
    let entries = one.config["history"].as_array().expect("a history");
    assert_eq!(entries[0]["created"], BASE_CREATED);
    for entry in &entries[1..] {
        assert_eq!(entry["created"], "2017-07-14T02:40:00Z", "{entry}");
    }
    assert_eq!(history(&one, 1).len(), 5);
    assert_eq!(one.layers[0].digest, busybox_layer().digest());
    assert!(one.layers[0].entries.iter().all(|entry| entry.mtime == BASE_TIME));
    for entry in one.layers[1..].iter().flat_map(|layer| &layer.entries) {
        assert!(entry.mtime <= EPOCH, "{entry}: {}", entry.mtime);
    }
    let mtime = |name: &str| {
        one.layers.iter().rev().find_map(|layer| layer.entry(name)).map(|entry| entry.mtime)
    };
    assert_eq!(mtime("fresh/old"), Some(1000));
    assert_eq!(mtime("fresh/file"), Some(EPOCH));
    assert_eq!(mtime("made/"), Some(EPOCH));
    // Without it, times are those of the steps.
    assert!(build(&fixture, &[]).config["created"].as_str() > Some("2024"));
}
