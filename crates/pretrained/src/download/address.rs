//! As much of an address as redirects need.

/// An http or https address, in parts.
pub(super) struct Address<'a> {
    scheme: &'a str,
    server: &'a str,
}

impl<'a> Address<'a> {
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
        let server = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        // A name before an `@` would be a password; anything odd is not a server's name.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        (!server.is_empty() && server.chars().all(plain)).then_some(Self { scheme, server })
    }

    pub(super) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    pub(super) fn same_server(&self, other: &Address<'_>) -> bool {
        self.scheme == other.scheme && self.server.eq_ignore_ascii_case(other.server)
    }

    /// Where a `Location` leads from here.
    pub(super) fn to(&self, location: &str) -> Option<String> {
        if location.contains(|c: char| c.is_control() || c == ' ' || c == '\\') {
            return None;
        }
        if location.contains("://") && !location.starts_with('/') {
            return Some(location.into());
        }
        match location.strip_prefix("//") {
            Some(other) => Some(format!("{}://{other}", self.scheme)),
            None => location.starts_with('/').then(|| format!("{}://{}{location}", self.scheme, self.server)),
        }
    }
}

/// A path with everything but letters, digits, `-._~` and `/` written as `%XX`.
pub(super) fn escaped(path: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from = Address::parse("https://a.b:1/x/y?z").unwrap();
        for (location, to) in [
            ("/p", Some("https://a.b:1/p")),
            ("//c/p", Some("https://c/p")),
            ("http://c/p", Some("http://c/p")),
            ("p", None),
            ("/p\\q", None),
        ] {
            assert_eq!(from.to(location).as_deref(), to, "{location}");
        }
        for url in ["ftp://a/x", "https://", "https://user:pass@a/x", "file:///etc/passwd", "https://a b/"] {
            assert!(Address::parse(url).is_none(), "{url}");
        }
        assert!(!from.same_server(&Address::parse("https://a.b:2/").unwrap()));
        assert!(!from.same_server(&Address::parse("http://a.b:1/").unwrap()));
        assert_eq!(escaped("a b/ü#?%"), "a%20b/%C3%BC%23%3F%25");
    }
}
