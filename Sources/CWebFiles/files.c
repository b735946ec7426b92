#include "CWebFiles.h"

// C23's #embed: the files become constants of the executable at compile time, in no time.
#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char index_html[] = {
#embed "web/index.html"
};
static const unsigned char app_js[] = {
#embed "web/app.js"
};
static const unsigned char card_js[] = {
#embed "web/card.js"
};
static const unsigned char format_js[] = {
#embed "web/format.js"
};
static const unsigned char live_js[] = {
#embed "web/live.js"
};
static const unsigned char viewer_js[] = {
#embed "web/viewer.js"
};
static const unsigned char style_css[] = {
#embed "web/style.css"
};
static const unsigned char favicon_svg[] = {
#embed "web/favicon.svg"
};

#define HTML "text/html; charset=utf-8"
#define SCRIPT "text/javascript; charset=utf-8"
#define STYLE "text/css; charset=utf-8"
#define SVG "image/svg+xml"

const headway_web_file headway_web_files[] = {
    {"/", HTML, index_html, sizeof index_html},
    {"/app.js", SCRIPT, app_js, sizeof app_js},
    {"/card.js", SCRIPT, card_js, sizeof card_js},
    {"/format.js", SCRIPT, format_js, sizeof format_js},
    {"/live.js", SCRIPT, live_js, sizeof live_js},
    {"/viewer.js", SCRIPT, viewer_js, sizeof viewer_js},
    {"/style.css", STYLE, style_css, sizeof style_css},
    {"/favicon.svg", SVG, favicon_svg, sizeof favicon_svg},
};

const size_t headway_web_file_count = sizeof headway_web_files / sizeof headway_web_files[0];
