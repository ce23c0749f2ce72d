//! Which CPUs the host has, as sysfs tells (Documentation/admin-guide/cputopology.rst), whatever this process may use.

/// Numbers beyond are not believed: the kernel's own most is 8192 (`NR_CPUS`).
const MOST: u32 = 8192;

/// The CPUs that are online, in order; `None` without sysfs.
pub fn online() -> Option<Vec<u32>> {
    list("online")
}

/// There is one CPU and no other can come, unless it is added to the running machine.
pub fn only_one() -> bool {
    list("present").is_some_and(|cpus| cpus.len() == 1)
}

fn list(name: &str) -> Option<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/{name}")).ok()?;
    Some(parse(&text)).filter(|cpus| !cpus.is_empty())
}

/// Parses a list such as `0-3,8` (cpuset(7)); what is no number is left out.
fn parse(list: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(MOST));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(parse("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse("0\n"), [0]);
        assert_eq!(parse(""), [0u32; 0]);
        assert_eq!(parse("x,2-1,4"), [4]);
        assert_eq!(parse("0-4294967295").len(), MOST as usize + 1);
    }

    #[test]
    fn of_this_host() {
        let online = online().unwrap();
        assert!(online.is_sorted() && online.len() >= std::thread::available_parallelism().unwrap().get());
        assert!(!only_one() || online.len() == 1);
    }
}
