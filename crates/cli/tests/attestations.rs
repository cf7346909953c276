//! What is said of results: provenance and bills of materials, in images and beside files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_testdata::{Registry, Reply, Scripted, sha256, validate};
use serde_json::{Value, json};

use crate::fixture::{Fixture, have, ran, read};

const DOCKERFILE: &str = "FROM busybox\nARG API_TOKEN\nARG VERSION\nCOPY etc /etc\nCOPY status /var/lib/dpkg/status\n\
                          COPY package-lock.json /app/\n\
                          RUN --mount=type=secret,id=pass test -s /run/secrets/pass && echo $VERSION > /version\n";
const STATUS: &str =
    "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n";
const LOCK: &str = r#"{"packages": {"": {"name": "app"}, "node_modules/a": {"version": "1.2.3"}}}"#;

fn fixture() -> Fixture {
    let fixture = Fixture::with(DOCKERFILE);
    fixture.write("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    fixture.write("status", STATUS);
    fixture.write("package-lock.json", LOCK);
    fs::write(fixture.path("pass"), "open sesame").expect("as the test made it");
    fixture
}

/// Arguments that use a secret, and an argument with one.
const SECRETS: [&str; 6] = [
    "--secret",
    "id=pass,src=pass",
    "--build-arg",
    "API_TOKEN=hunter2",
    "--build-arg",
    "VERSION=7",
];

/// The files of an archive.
fn entries(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(fs::File::open(archive).expect("as the test made it"));
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("as the test made it") {
        let mut entry = entry.expect("as the test made it");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("as the test made it");
        found.insert(entry.path().expect("as the test made it").display().to_string(), bytes);
    }
    found
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("as the test made it")
}

/// The blob of a descriptor in an image layout.
fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().expect("as the test made it").replace(':', "/");
    &files[&format!("blobs/{digest}")]
}

/// The statements of the one image in an archive, by their types, and the manifest that names them.
fn statements(files: &BTreeMap<String, Vec<u8>>) -> (BTreeMap<String, Value>, Value) {
    let top = parsed(&files["index.json"]);
    let index = parsed(blob(files, &top["manifests"][0]));
    let [image, attestation] =
        index["manifests"].as_array().expect("as the test made it").as_slice()
    else {
        panic!("{index}")
    };
    assert_eq!(attestation["platform"], json!({ "architecture": "unknown", "os": "unknown" }));
    assert_eq!(
        attestation["annotations"],
        json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        })
    );
    let manifest = parsed(blob(files, attestation));
    let mut found = BTreeMap::new();
    for layer in manifest["layers"].as_array().expect("as the test made it") {
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        let statement = parsed(blob(files, layer));
        assert_eq!(statement["predicateType"], layer["annotations"]["in-toto.io/predicate-type"]);
        let subject = &statement["subject"][0]["digest"]["sha256"];
        assert_eq!(
            format!("sha256:{}", subject.as_str().expect("as the test made it")),
            image["digest"]
        );
        found.insert(
            statement["predicateType"].as_str().expect("as the test made it").to_owned(),
            statement,
        );
    }
    (found, manifest)
}

/// Whether a document is what SPDX 2.3 asks of all of them.
fn check_spdx(document: &Value) {
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    assert_eq!(document["dataLicense"], "CC0-1.0");
    assert_eq!(document["SPDXID"], "SPDXRef-DOCUMENT");
    assert!(
        document["documentNamespace"]
            .as_str()
            .expect("as the test made it")
            .starts_with("urn:uuid:")
    );
    assert!(
        document["creationInfo"]["creators"][0]
            .as_str()
            .expect("as the test made it")
            .starts_with("Tool: rbuild")
    );
    let packages = document["packages"].as_array().expect("as the test made it");
    let mut ids = vec!["SPDXRef-DOCUMENT"];
    for package in packages {
        for key in ["SPDXID", "name", "downloadLocation"] {
            assert!(package[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {package}");
        }
        let id = package["SPDXID"].as_str().expect("as the test made it");
        let rest = id.strip_prefix("SPDXRef-").expect("as the test made it");
        assert!(rest.chars().all(|char| char.is_ascii_alphanumeric() || "-.".contains(char)));
        assert!(!ids.contains(&id), "{id} is there twice");
        ids.push(id);
    }
    for relationship in document["relationships"].as_array().expect("as the test made it") {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            assert!(
                ids.contains(&relationship[end].as_str().expect("as the test made it")),
                "{relationship}"
            );
        }
    }
}

fn purls(document: &Value) -> Vec<&str> {
    let packages = document["packages"].as_array().expect("as the test made it").iter();
    packages.filter_map(|it| it["externalRefs"][0]["referenceLocator"].as_str()).collect()
}

#[test]
fn privileged_an_image_comes_with_what_is_said_of_it() {
    let fixture = fixture();
    let build = |store: &str, file: &str| {
        let output = format!("type=oci,dest={file}");
        let args = [
            &SECRETS[..],
            &["--provenance=mode=max,builder-id=https://ci.example/7", "--sbom=true"],
            &["-t", "app:1", "-o", &output, "--metadata-file", "meta.json"],
        ];
        let mut command = fixture.build_command(store, &args.concat());
        ran(command.env("SOURCE_DATE_EPOCH", "60").output().unwrap()).ok();
        fs::read(fixture.path(file)).unwrap()
    };
    let first = build("store", "one.tar");
    assert!(first == build("other", "two.tar"), "another store, other bytes");
    let images = validate::oci_archive(&first).unwrap();
    assert_eq!(images.len(), 1);
    let files = entries(&fixture.path("one.tar"));
    let (found, manifest) = statements(&files);
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!(manifest["subject"]["digest"], images[0].manifest_digest);
    for statement in found.values() {
        let text = statement.to_string();
        assert!(!text.contains("hunter2") && !text.contains("open sesame"), "{text}");
        let name = statement["subject"][0]["name"].as_str().unwrap();
        assert!(name.starts_with("pkg:docker/app@1?platform=linux%2F"), "{name}");
    }

    let provenance = &found["https://slsa.dev/provenance/v1"]["predicate"];
    let request = &provenance["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:VERSION"], "7");
    assert_eq!(request["args"]["build-arg:API_TOKEN"], "xxxxx");
    assert_eq!(request["secrets"], json!([{ "id": "pass", "optional": true }]));
    let details = &provenance["runDetails"];
    assert_eq!(details["builder"]["id"], "https://ci.example/7");
    assert_eq!(details["metadata"]["startedOn"], "1970-01-01T00:01:00Z");
    let extension = &details["metadata"]["buildkit_metadata"];
    let layers = extension["layers"].as_object().unwrap();
    let most = layers.values().map(|it| it[0].as_array().unwrap().len()).max();
    assert_eq!(most, Some(images[0].layers.len()), "{layers:?}");
    assert_eq!(extension["source"]["infos"][0]["filename"], "Dockerfile");
    let steps = &provenance["buildDefinition"]["internalParameters"]["buildConfig"];
    assert!(steps["llbDefinition"].as_array().unwrap().len() >= 6);

    let document = &found["https://spdx.dev/Document"]["predicate"];
    check_spdx(document);
    let expected = ["pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12", "pkg:npm/a@1.2.3"];
    assert_eq!(purls(document), expected);
    let layer = document["packages"].as_array().unwrap().last().unwrap();
    let diff_ids: Vec<_> =
        images[0].layers.iter().map(|it| format!("layerID: {}", it.diff_id)).collect();
    assert!(diff_ids.contains(&layer["comment"].as_str().unwrap().to_owned()), "{layer}");

    let metadata = parsed(&fs::read(fixture.path("meta.json")).unwrap());
    let said = &metadata["buildx.build.provenance"]["buildDefinition"];
    assert_eq!(said, &provenance["buildDefinition"]);
    let top = parsed(&files["index.json"]);
    assert_eq!(metadata["containerimage.digest"], top["manifests"][0]["digest"]);
}

#[test]
fn privileged_passwords_are_nowhere_in_what_is_said() {
    let site = Scripted::start(|_, _| Reply::new(200, "a"));
    let dockerfile = format!(
        "FROM base AS early\nARG REPO_URL\nARG HTTP_PROXY\nARG NPM_TOKEN\nARG DB_PASS\n\
         ENV LINE=//r/:_x=$NPM_TOKEN\nWORKDIR /w/$NPM_TOKEN\nADD http://{}/f?token=$NPM_TOKEN /f\n\
         COPY <<EOF /npmrc\n//registry/:_authToken=${{NPM_TOKEN}}\nEOF\n\
         RUN --mount=type=cache,target=/c,id=c-$NPM_TOKEN echo hi > /out\n\
         FROM scratch\nCOPY --from=early /out /\n",
        site.address()
    );
    let fixture = Fixture::with(&dockerfile);
    let layout = fixture.busybox().display().to_string();
    let base = format!("base=oci-layout://{layout}:latest");
    let args = [
        "REPO_URL=https://me:hunter2url@h/x",
        "HTTP_PROXY=me:hunter2proxy@127.0.0.1:1",
        "NO_PROXY=127.0.0.1",
        "NPM_TOKEN=hunter2token",
        "DB_PASS=hunter2pass",
    ];
    let args: Vec<_> = args.iter().flat_map(|arg| ["--build-arg", *arg]).collect();
    for mode in ["min", "max"] {
        let provenance = format!("--provenance=mode={mode}");
        let asked = [&*provenance, "--build-context", &base];
        let out = fixture.build_files(&[&args[..], &asked].concat());
        let statement = parsed(read(&out, "provenance.json").as_bytes());
        let mut text = statement.to_string();
        for step in statement["predicate"]["buildDefinition"]["internalParameters"]["buildConfig"]
            ["llbDefinition"]
            .as_array()
            .into_iter()
            .flatten()
        {
            for action in step["op"]["Op"]["file"]["actions"].as_array().into_iter().flatten() {
                let Some(data) = action["Action"]["mkfile"]["data"].as_str() else { continue };
                text += &String::from_utf8_lossy(&STANDARD.decode(data).unwrap());
            }
        }
        assert!(!text.contains("hunter2") && !text.contains(&layout), "{text}");
        let sources = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
        let file = format!("http://{}/f", site.address());
        let found = sources.as_array().unwrap().iter().find(|source| source["uri"] == *file);
        let digest = &found.unwrap_or_else(|| panic!("{sources}"))["digest"]["sha256"];
        assert_eq!(*digest, sha256(b"a").trim_start_matches("sha256:"));
        assert_eq!(text.contains("_authToken=xxxxx"), mode == "max", "{text}");
    }
}

#[test]
fn privileged_others_read_an_image_with_attestations() {
    const TEST: &str = "privileged_others_read_an_image_with_attestations";
    if !have(TEST, "skopeo") {
        return;
    }
    let fixture = Fixture::with("FROM busybox\nCOPY Dockerfile /\n");
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.address());
    fixture.build(&["--push", "-t", &name, "--provenance=mode=min", "--sbom=true"]).ok();
    let pushed = registry.manifest("app", "1").expect("an index");
    let index = parsed(&pushed.bytes);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let skopeo = Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", &format!("docker://{name}")])
        .output()
        .unwrap();
    assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));
    assert_eq!(
        parsed(&skopeo.stdout)["Architecture"],
        index["manifests"][0]["platform"]["architecture"]
    );
    // All of it, with the attestations.
    let copy = Command::new("skopeo")
        .args(["copy", "--all", "--src-tls-verify=false", &format!("docker://{name}")])
        .arg(format!("oci:{}", fixture.path("copy").display()))
        .output()
        .unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    // What has a name in the store keeps its attestations, and serves as a base.
    fixture.run(["prune", "--all", "-f"]);
    fixture.write("Dockerfile", format!("FROM {name}\nRUN test -e /Dockerfile\n"));
    fixture.build(&["-o", "type=cacheonly"]).ok();
    fixture.write("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n");
    let again = format!("{}/app:2", registry.address());
    fixture.run(["tag", &name, &again]).ok();
    fixture.run(["push", &again]).ok();
    assert_eq!(registry.manifest("app", "2").expect("an index").bytes, pushed.bytes);
}

#[test]
fn privileged_files_have_it_beside_them() {
    let fixture = Fixture::with("FROM scratch\nCOPY app /app/\n");
    fixture.write("app/requirements.txt", "six==1.16.0\n");
    let asked = ["--provenance=mode=min", "--sbom=true"];
    let out = fixture.build_files(&asked);
    let mode = fs::metadata(out.join("provenance.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let subject = json!([{
        "name": "app/requirements.txt",
        "digest": { "sha256": sha256(b"six==1.16.0\n").trim_start_matches("sha256:") },
    }]);
    let provenance = parsed(read(&out, "provenance.json").as_bytes());
    assert_eq!(provenance["subject"], subject);
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    let sbom = parsed(read(&out, "sbom.spdx.json").as_bytes());
    assert_eq!(sbom["subject"], subject);
    check_spdx(&sbom["predicate"]);
    assert_eq!(purls(&sbom["predicate"]), ["pkg:pypi/six@1.16.0"]);

    let tar = [&asked[..], &["-o", "type=tar,dest=files.tar,attestation-prefix=x."]].concat();
    fixture.build(&tar).ok();
    let names: Vec<_> = entries(&fixture.path("files.tar")).into_keys().collect();
    let expected = ["app/", "app/requirements.txt", "x.provenance.json", "x.sbom.spdx.json"];
    assert_eq!(names, expected);

    fixture.write("app/provenance.json", "{}");
    fixture.write("Dockerfile", "FROM scratch\nCOPY app /\n");
    let taken = fixture.build(&[&asked[..], &["-o", "type=local,dest=taken"]].concat()).fails(1);
    assert!(taken.contains("the result has a file `/provenance.json`"), "{taken}");
    let inline = ["--provenance=inline-only=true", "-o", "type=local,dest=inline"];
    fixture.build(&inline).ok();
    assert_eq!(read(&fixture.path("inline"), "provenance.json"), "{}");
}

#[test]
fn privileged_stages_and_the_context_are_looked_into_where_the_file_says_so() {
    let fixture = Fixture::with(
        "ARG BUILDKIT_SBOM_SCAN_CONTEXT=false\n\
         FROM scratch AS tools\nARG BUILDKIT_SBOM_SCAN_STAGE\nCOPY tools /\n\
         FROM scratch AS other\nCOPY other /\n\
         FROM scratch\nCOPY --from=tools /tool /\nCOPY --from=other /tool /other\n",
    );
    fixture.write("tools/tool", "1");
    fixture.write("tools/requirements.txt", "six==1.16.0\n");
    fixture.write("other/tool", "2");
    fixture.write("Cargo.lock", "");
    fixture.write("go.sum", "example.com/a v1.0.0 h1:x=\n");
    let sbom = |args: &[&str]| {
        let out = fixture.build_files(&[&["--sbom=true"], args].concat());
        let mut names: Vec<_> = fs::read_dir(&out)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(sbom(&[]), ["other", "sbom.spdx.json", "tool"]);
    let stage = ["--build-arg", "BUILDKIT_SBOM_SCAN_STAGE=other,tools"];
    let context = ["--build-arg", "BUILDKIT_SBOM_SCAN_CONTEXT=true"];
    let expected =
        ["other", "sbom-context.spdx.json", "sbom-tools.spdx.json", "sbom.spdx.json", "tool"];
    assert_eq!(sbom(&[&stage[..], &context].concat()), expected);
    let out = fixture.path("out");
    let of = |name: &str| parsed(read(&out, name).as_bytes())["predicate"].clone();
    assert_eq!(purls(&of("sbom-tools.spdx.json")), ["pkg:pypi/six@1.16.0"]);
    let all = ["pkg:golang/example.com/a@v1.0.0", "pkg:pypi/six@1.16.0"];
    assert_eq!(purls(&of("sbom-context.spdx.json")), all);
    assert!(purls(&of("sbom.spdx.json")).is_empty());
}

#[test]
fn privileged_lock_files_of_strangers_do_not_take_all_memory() {
    let fixture = Fixture::with("FROM scratch\nCOPY files /\n");
    let good = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\n";
    fixture.write("files/Cargo.lock", format!("{good}b = [{}]\n", "0,".repeat(15 << 20)));
    let nothing = "[{\"\":0}],".repeat(800_000);
    fixture.write("files/package-lock.json", format!("{{\"packages\":[{nothing}0]}}"));
    fixture.write("files/composer.lock", format!("{{{}}}", " ".repeat(9 << 20)));
    let output = "type=oci,dest=image.tar";
    let build = fixture.build_command("store", &["--sbom=true", "-o", output]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -d 1000000 && exec \"$@\"", "sh"]);
    limited.arg(build.get_program()).args(build.get_args());
    for (name, value) in build.get_envs() {
        value.map(|value| limited.env(name, value));
    }
    if let Some(folder) = build.get_current_dir() {
        limited.current_dir(folder);
    }
    let out = ran(limited.output().unwrap()).ok();
    let warning = "the SBOM has not all of `/composer.lock`: it is larger than 8 MiB";
    assert!(out.stderr.contains(warning), "{}", out.stderr);
    let files = entries(&fixture.path("image.tar"));
    let document = &statements(&files).0["https://spdx.dev/Document"]["predicate"];
    assert_eq!(purls(document), ["pkg:cargo/a@1.0.0"]);
    assert_eq!(document["comment"], "Not read:\n/composer.lock: it is larger than 8 MiB");
}

#[test]
fn what_cannot_be_said_is_refused() {
    let fixture = Fixture::with("FROM scratch\nLABEL a=b\n");
    for (args, message) in [
        (&["--sbom=generator=docker/scanner"][..], "Leave out generator"),
        (&["--attest", "type=vex"], "its type is provenance or sbom"),
        (&["--provenance=version=v0.2"], "in version v1, not `v0.2`"),
        (&["--build-arg", "BUILDKIT_ATTEST_SBOM=generator=x"], "Leave out generator"),
        (
            &["--sbom=true", "-o", "type=docker,dest=x.tar"],
            "docker exporter does not currently support exporting manifest lists",
        ),
        (&["-o", "type=tar,dest=x,oci-artifact=true"], "type=tar has no `oci-artifact`"),
    ] {
        let error = fixture.build(args).fails(2);
        assert!(error.contains(message), "{args:?}: {error}");
    }
    // Off, however that is said.
    let off = ["--provenance=false", "--sbom=false", "--attest", "type=sbom,disabled=true"];
    let error = fixture.build(&[&off[..], &["-o", "type=cacheonly"]].concat()).fails(2);
    assert!(error.contains("both say what sbom"), "{error}");
    let off = ["--provenance", "false", "--sbom", "false", "-o", "type=oci,dest=plain.tar"];
    fixture.build(&off).ok();
    let top = parsed(&entries(&fixture.path("plain.tar"))["index.json"]);
    assert_eq!(top["manifests"][0]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}

#[test]
fn the_form_of_images_is_written_too() {
    let fixture = Fixture::with("FROM scratch\nLABEL a=b\n");
    let output = "type=oci,dest=image.tar,oci-artifact=false";
    fixture.build(&["--attest", "type=provenance,mode=min", "-o", output]).ok();
    let docker = ["--provenance=true", "-o", "type=image,oci-mediatypes=false", "-t", "app"];
    let out = fixture.build(&docker).ok();
    assert!(out.stderr.contains("OCI media types"), "{}", out.stderr);
    let files = entries(&fixture.path("image.tar"));
    let (found, manifest) = statements(&files);
    assert_eq!(found.len(), 1);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    let config = parsed(blob(&files, &manifest["config"]));
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
}
