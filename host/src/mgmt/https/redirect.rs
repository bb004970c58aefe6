//! Plain HTTP on port 80: says where HTTPS is and nothing else.
//!
//! Only a host that asks for one of our names is led anywhere, so that nobody can make this host name another.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::entrance::secure;
use super::origin::{HostNames, check_host};

/// Where plain requests are led.
pub(super) struct Redirect {
    pub(super) names: Arc<HostNames>,
    /// The port of HTTPS; 443 is not named.
    pub(super) port: u16,
}

impl Redirect {
    pub(super) fn answer<B>(&self, request: Request<B>, local: IpAddr) -> Response {
        let (parts, _) = request.into_parts();
        let asked = match check_host(&parts, &self.names, local) {
            Ok(asked) => asked,
            Err(problem) => return secure(problem.into_response()),
        };
        // `OPTIONS *` has a target that is no path, and that would become a part of the name.
        let path = parts.uri.path_and_query().map(|path| path.as_str());
        let path = path.filter(|path| path.starts_with('/')).unwrap_or("/");
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        let location = format!("https://{}{port}{path}", asked.host);
        let led = (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)], Body::empty());
        secure(led.into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_request_is_led_to_https_on_the_same_host() {
        let check = |port, host: &str, path: &str| {
            let names = Arc::new(HostNames::new("sofa", None, &[]));
            let request = Request::builder().uri(path).header("host", host).body(()).unwrap();
            let local = "10.0.0.2".parse().unwrap();
            let answer = Redirect { names, port }.answer(request, local);
            let location =
                answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
            (answer.status().as_u16(), location.unwrap_or_default())
        };
        assert_eq!(
            check(443, "sofa.local", "/a?b=c"),
            (308, "https://sofa.local/a?b=c".to_owned())
        );
        assert_eq!(check(47990, "10.0.0.2:80", "/"), (308, "https://10.0.0.2:47990/".to_owned()));
        assert_eq!(check(443, "evil.example", "/"), (421, String::new()));
        assert_eq!(
            check(443, "sofa.local", "//evil.example/"),
            (308, "https://sofa.local//evil.example/".to_owned())
        );
        assert_eq!(check(443, "sofa.local", "*"), (308, "https://sofa.local/".to_owned()));
    }
}
