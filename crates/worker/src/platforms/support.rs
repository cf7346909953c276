//! Which platforms steps can be run for here, and how.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rbuild_oci::Platform;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::machine::{MACHINES, Machine};
use super::registered::registered;

/// How the steps of a platform run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlatformSupport {
    /// On the processor.
    Native {
        /// As a platform of 32 bits on one of 64, which programs ask for by `uname`.
        is_32_bit: bool,
    },
    /// By what the machine's binfmt_misc has for it.
    Registered {
        /// Its path, if it can be seen.
        interpreter: Option<String>,
    },
    /// By a static qemu of the machine, registered for each step alone.
    Emulated(Emulator),
    /// Not at all.
    Missing {
        /// What is missing, and what would help.
        reason: String,
    },
}

/// A program that runs those of another architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// The architecture, in Go's spelling.
    pub(crate) architecture: String,
    /// Where the emulator is.
    pub(crate) path: PathBuf,
    /// How its programs begin.
    pub(crate) magic: Vec<u8>,
    /// Which bits of that count.
    pub(crate) mask: Vec<u8>,
}

impl Emulator {
    /// Where the emulator is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The platforms of this machine. What was found out about one is remembered.
#[derive(Debug)]
pub struct Platforms {
    /// Where emulators are looked for.
    directories: Vec<PathBuf>,
    known: Mutex<BTreeMap<Platform, PlatformSupport>>,
}

impl Platforms {
    /// With the emulators that are in these directories.
    #[must_use]
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories, known: Mutex::default() }
    }

    /// How steps for a platform run. May start a program to find out, so not for an async thread.
    pub fn support(&self, platform: &Platform) -> PlatformSupport {
        let platform = platform.clone().normalize();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(platform).or_insert_with_key(|platform| self.find_out(platform)).clone()
    }

    /// Every platform that is known of, with how its steps run.
    pub fn all(&self) -> Vec<(Platform, PlatformSupport)> {
        let names = |machine: &Machine| match machine.architecture {
            "amd64" => vec!["amd64", "amd64/v2", "amd64/v3", "amd64/v4"],
            "arm" => vec!["arm/v7", "arm/v6"],
            other => vec![other],
        };
        let texts = MACHINES.iter().flat_map(names).map(|name| format!("linux/{name}"));
        let platforms = texts.filter_map(|text| text.parse::<Platform>().ok());
        platforms.map(|platform| (platform.clone(), self.support(&platform))).collect()
    }

    fn find_out(&self, platform: &Platform) -> PlatformSupport {
        let host = Platform::host();
        if platform.os != host.os {
            let reason = format!("steps of {} cannot run on Linux", platform.os);
            return PlatformSupport::Missing { reason };
        }
        let Some(machine) = Machine::named(&platform.architecture) else {
            let reason = format!("the architecture `{}` is not known", platform.architecture);
            return PlatformSupport::Missing { reason };
        };
        if platform.architecture == host.architecture {
            return match missing_feature(&platform.variant) {
                None => PlatformSupport::Native { is_32_bit: false },
                Some(feature) => PlatformSupport::Missing {
                    reason: format!("this processor has no `{feature}`, which {platform} needs"),
                },
            };
        }
        match registered(machine) {
            Some(entry) if entry.is_fixed => {
                return PlatformSupport::Registered { interpreter: Some(entry.interpreter) };
            }
            // It would be looked for in the step's root.
            Some(_) => {}
            None if runs(machine) => {
                let narrow = [("amd64", "386"), ("arm64", "arm")];
                let is_32_bit = narrow.contains(&(&host.architecture, machine.architecture));
                return if is_32_bit {
                    PlatformSupport::Native { is_32_bit }
                } else {
                    PlatformSupport::Registered { interpreter: None }
                };
            }
            None => {}
        }
        self.emulator(machine).map_or_else(
            || PlatformSupport::Missing {
                reason: format!(
                    "there is no static `qemu-{}`, and binfmt_misc has nothing for it; install Debian's `qemu-user-static`",
                    machine.emulator
                ),
            },
            PlatformSupport::Emulated,
        )
    }

    /// Looks for a static emulator.
    fn emulator(&self, machine: &Machine) -> Option<Emulator> {
        let name = machine.emulator;
        let names = [format!("qemu-{name}-static"), format!("qemu-{name}")];
        let mut places = self
            .directories
            .iter()
            .flat_map(|directory| names.iter().map(move |name| directory.join(name)));
        let path = places.find(|path| path.is_absolute() && is_static(path) == Some(true))?;
        Some(Emulator {
            architecture: machine.architecture.to_owned(),
            path,
            magic: machine.magic().to_vec(),
            mask: machine.mask().to_vec(),
        })
    }
}

/// Whether a program of this machine needs no loader, which is not there in a step's root; `None` if it is none.
fn is_static(path: &Path) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let file = File::open(path).ok()?;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    let own = Machine::named(&Platform::host().architecture)?;
    let mut bytes = header.iter().zip(own.magic()).zip(own.mask());
    if !bytes.all(|((byte, magic), mask)| (byte ^ magic) & mask == 0) {
        return Some(false);
    }
    // rbuild runs on little-endian machines of 64 bits only, and s390x.
    let is_big = header[5] == 2;
    let half = |at: usize| {
        let bytes = [header[at], header[at + 1]];
        if is_big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    };
    let offset: [u8; 8] = header[32..40].try_into().ok()?;
    let offset = if is_big { u64::from_be_bytes(offset) } else { u64::from_le_bytes(offset) };
    for index in 0..u64::from(half(56)) {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, offset + index * u64::from(half(54))).ok()?;
        let kind = if is_big { u32::from_be_bytes(kind) } else { u32::from_le_bytes(kind) };
        if kind == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether the kernel runs programs of a machine, by whatever means.
fn runs(machine: &Machine) -> bool {
    let made = || -> std::io::Result<bool> {
        let mut file = File::from(memfd_create(c"rbuild-probe", MemfdFlags::CLOEXEC)?);
        file.write_all(&machine.program())?;
        file.seek(SeekFrom::Start(0))?;
        // While it is open for writing it cannot be executed.
        let program = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        drop(file);
        let status = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    };
    made().unwrap_or(false)
}

/// What this processor lacks for a level of its architecture.
fn missing_feature(variant: &str) -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let level: u8 = variant.strip_prefix('v').and_then(|level| level.parse().ok()).unwrap_or(1);
        let features = [
            (2, "cx16", has!("cmpxchg16b")),
            (2, "popcnt", has!("popcnt")),
            (2, "sse3", has!("sse3")),
            (2, "sse4.1", has!("sse4.1")),
            (2, "sse4.2", has!("sse4.2")),
            (2, "ssse3", has!("ssse3")),
            (3, "avx", has!("avx")),
            (3, "avx2", has!("avx2")),
            (3, "bmi1", has!("bmi1")),
            (3, "bmi2", has!("bmi2")),
            (3, "f16c", has!("f16c")),
            (3, "fma", has!("fma")),
            (3, "lzcnt", has!("lzcnt")),
            (3, "movbe", has!("movbe")),
            (4, "avx512f", has!("avx512f")),
            (4, "avx512bw", has!("avx512bw")),
            (4, "avx512cd", has!("avx512cd")),
            (4, "avx512dq", has!("avx512dq")),
            (4, "avx512vl", has!("avx512vl")),
        ];
        features.into_iter().find(|(of, _, has)| *of <= level && !has).map(|(_, name, _)| name)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = variant;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn of(platforms: &Platforms, text: &str) -> PlatformSupport {
        platforms.support(&text.parse().unwrap())
    }

    #[test]
    fn the_machines_own_platform_is_native() {
        let platforms = Platforms::new(Vec::new());
        let native = PlatformSupport::Native { is_32_bit: false };
        assert_eq!(platforms.support(&Platform::host()), native);
        assert!(runs(Machine::named(&Platform::host().architecture).unwrap()));
    }

    #[test]
    fn what_is_missing_is_said() {
        let platforms = Platforms::new(vec![PathBuf::from("/nonesuch")]);
        for (text, word) in [("windows/amd64", "windows"), ("linux/wasm", "`wasm` is not known")] {
            let PlatformSupport::Missing { reason } = of(&platforms, text) else {
                panic!("{text} runs")
            };
            assert!(reason.contains(word), "{reason}");
        }
        let foreign = MACHINES.iter().filter(|machine| registered(machine).is_none());
        for machine in foreign.filter(|machine| !runs(machine)) {
            let text = format!("linux/{}", machine.architecture);
            let PlatformSupport::Missing { reason } = of(&platforms, &text) else {
                panic!("{text} runs")
            };
            assert!(reason.contains("qemu-user-static"), "{reason}");
        }
    }

    #[test]
    fn only_static_programs_of_this_machine_are_emulators() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(is_static(&folder.path().join("none")), None);
        let path = folder.path().join("program");
        let own = Machine::named(&Platform::host().architecture).unwrap();
        std::fs::write(&path, own.program()).unwrap();
        assert_eq!(is_static(&path), Some(true));
        let other = if own.architecture == "s390x" { "arm64" } else { "s390x" };
        std::fs::write(&path, Machine::named(other).unwrap().program()).unwrap();
        assert_eq!(is_static(&path), Some(false));
        // The test itself is linked to the C library.
        let mut test = Vec::new();
        File::open("/proc/self/exe").unwrap().read_to_end(&mut test).unwrap();
        std::fs::write(&path, test).unwrap();
        assert_eq!(is_static(&path), Some(false));
    }
}
