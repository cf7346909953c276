//! What was found out, for people and for programs.

use serde_json::json;

use super::Diagnosis;
use super::check::Check;

pub(super) fn text(diagnosis: &Diagnosis) -> String {
    let mut lines = vec![format!("Isolation: {}", diagnosis.tier.described()), String::new()];
    let checks = diagnosis.checks.iter();
    lines.extend(checks.map(|check| format!("{} {}: {}", mark(check), check.name, check.found)));
    lines.extend([String::new(), "Platforms that steps can be for:".to_owned()]);
    for line in diagnosis.platforms.iter().filter(|line| line.can_run) {
        let by = match &line.detail {
            Some(detail) => format!("{} ({detail})", line.by),
            None => line.by.to_owned(),
        };
        lines.push(format!("  {:<15} {by}", line.platform));
    }
    let not = diagnosis.platforms.iter().filter(|line| !line.can_run);
    let not: Vec<&str> = not.map(|line| line.platform.as_str()).collect();
    if !not.is_empty() {
        lines.push(format!("Not: {}", not.join(", ")));
    }
    if let Some(fix) = diagnosis.improvement() {
        lines.extend([String::new(), format!("What would help most: {fix}")]);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn mark(check: &Check) -> &'static str {
    match check {
        Check { is_good: true, .. } => "ok  ",
        Check { is_fatal: true, .. } => "FAIL",
        _ => "poor",
    }
}

pub(super) fn json(diagnosis: &Diagnosis) -> String {
    let checks: Vec<_> = diagnosis
        .checks
        .iter()
        .map(|check| {
            let status = mark(check).trim_end().to_lowercase();
            json!({ "name": check.name, "status": status, "found": check.found, "fix": check.fix })
        })
        .collect();
    let platforms: Vec<_> = diagnosis
        .platforms
        .iter()
        .map(|line| json!({ "platform": line.platform, "by": line.by, "detail": line.detail }))
        .collect();
    let document = json!({
        "tier": diagnosis.tier.name(),
        "exitCode": diagnosis.tier.exit_code(),
        "improvement": diagnosis.improvement(),
        "checks": checks,
        "platforms": platforms,
    });
    format!("{document:#}\n")
}
