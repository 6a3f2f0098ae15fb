//! Amounts as people type them: CPU, memory, time and money.

use std::time::Duration;

use common::money::{Atoms, MoneyError};

/// Reads USDC such as `1.25`.
pub(crate) fn tokens(text: &str) -> Result<Atoms, MoneyError> {
    Atoms::parse_tokens(text)
}

/// Reads milli-CPU: `250` and `250m` are a quarter of a CPU, as is `0.25`.
pub(crate) fn milli_cpu(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no amount of CPU: write milli-CPU such as 250, or CPUs such as 0.25");
    if let Some((whole, fraction)) = text.split_once('.') {
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if fraction.is_empty() || fraction.len() > 3 || !is_number(whole) || !is_number(fraction) {
            return Err(wrong());
        }
        return format!("{whole}{fraction:0<3}").parse().map_err(|_| wrong());
    }
    let (number, is_milli) = text.strip_suffix('m').map_or((text, false), |number| (number, true));
    let milli: u32 = number.parse().map_err(|_| wrong())?;
    // Nobody sells ten thousandths of a CPU; somebody who types 2 most likely means two CPUs.
    if milli < 10 && !is_milli {
        return Err(format!("{text} is milli-CPU: write {text}.0 for {text} CPUs, or {text}m if you mean it"));
    }
    Ok(milli)
}

/// Reads MiB: `128`, `128MiB`, `2GiB`.
pub(crate) fn mebibytes(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no amount of memory: write MiB such as 128, or 128MiB, or 2GiB");
    let (number, scale) = match (text.strip_suffix("MiB"), text.strip_suffix("GiB")) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 1_024),
        _ => (text, 1),
    };
    number.trim().parse::<u32>().ok().and_then(|number| number.checked_mul(scale)).ok_or_else(wrong)
}

/// Reads a span of time: `90s`, `30m`, `12h`, `7d`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time: write a whole number with s, m, h or d, such as 12h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_typed_in_thousandths_or_as_a_decimal() {
        for (text, milli) in
            [("250", 250), ("250m", 250), ("0.25", 250), ("1.0", 1_000), ("2.5", 2_500), (".5", 500), ("2m", 2)]
        {
            assert_eq!(milli_cpu(text), Ok(milli), "{text}");
        }
        for text in ["", "one", "0.2500", "1.", "-1", "1.-5", "2", "99999999999"] {
            assert!(milli_cpu(text).is_err(), "{text}");
        }
        assert!(milli_cpu("2").unwrap_err().contains("2.0"));
    }

    #[test]
    fn memory_is_typed_in_mebibytes() {
        for (text, mib) in [("128", 128), ("128MiB", 128), ("2GiB", 2_048), ("2 GiB", 2_048)] {
            assert_eq!(mebibytes(text), Ok(mib), "{text}");
        }
        for text in ["", "128MB", "lots", "0.5GiB", "9999999GiB"] {
            assert!(mebibytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn time_has_a_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "12", "h", "1w", "-1s", "1é", "99999999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
