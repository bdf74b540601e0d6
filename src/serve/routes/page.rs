//! The page at `/`: files embedded in this binary, with relative addresses so that a proxy may serve them below any
//! path.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::serve::context::Context;
use crate::serve::problem::Problem;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Each file of the page: its name, its type, its content.
const FILES: [(&str, &str, &str); 13] = [
    ("index.html", HTML, include_str!("../page/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    ("main.js", SCRIPT, include_str!("../page/main.js")),
    ("api.js", SCRIPT, include_str!("../page/api.js")),
    ("dead.js", SCRIPT, include_str!("../page/dead.js")),
    ("dom.js", SCRIPT, include_str!("../page/dom.js")),
    ("events.js", SCRIPT, include_str!("../page/events.js")),
    ("health.js", SCRIPT, include_str!("../page/health.js")),
    ("list.js", SCRIPT, include_str!("../page/list.js")),
    ("model.js", SCRIPT, include_str!("../page/model.js")),
    ("panel.js", SCRIPT, include_str!("../page/panel.js")),
    ("views.js", SCRIPT, include_str!("../page/views.js")),
];

/// Nothing from other hosts, nothing inline, and no text that becomes markup. A form that is submitted before the
/// script is loaded goes nowhere, because its token would be in the URL.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The routes of the page.
pub(super) fn router() -> Router<Context> {
    Router::new().route("/", get(async |headers: HeaderMap| file("index.html", &headers))).route(
        "/page/{file}",
        get(async |Path(name): Path<String>, headers: HeaderMap| file(&name, &headers)),
    )
}

/// A file, or the answer that the browser has it already.
fn file(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let (_, kind, text) = FILES
        .iter()
        .find(|(own, ..)| *own == name)
        .ok_or_else(|| Problem::not_found("the page has no such file"))?;
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())));
    let fixed: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Browsers ask each time, and usually get the answer without the file, so a new version shows at once.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    let tag = [(header::ETAG, tag)];
    Ok(if is_known {
        (StatusCode::NOT_MODIFIED, fixed, tag).into_response()
    } else {
        (fixed, tag, *text).into_response()
    })
}
