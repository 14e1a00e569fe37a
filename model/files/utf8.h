/* UTF-8, checked: the one place that decides which bytes are text. No state, any thread. */
#ifndef M2SE_UTF8_H
#define M2SE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Length in bytes (1..4) of the character at the start of text[0..size), or 0 if there is none or it is not
 * valid: stray or missing continuation bytes, overlong forms, surrogates, beyond U+10FFFF. */
size_t m2se_utf8_next(const char *text, size_t size);

/* All of text[0..size) is valid UTF-8 (a NUL byte is a valid character; empty is valid). */
bool m2se_utf8_valid(const char *text, size_t size);

#endif
