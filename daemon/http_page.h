/* The page at "/": http_page.html, made a string by CMake. It asks for /status once a second and needs
 * nothing from elsewhere. */
#ifndef M2SED_HTTP_PAGE_H
#define M2SED_HTTP_PAGE_H

extern const char m2sed_http_page[];

#endif
