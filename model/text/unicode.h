/* Characters as the tokenizers of Hugging Face see them: libutf8proc's tables, and where the reference's
 * libraries are of another Unicode version (unicode_exceptions.inc), theirs. No state, any thread.
 */
#ifndef M2SE_TEXT_UNICODE_H
#define M2SE_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define M2SE_UNICODE_BROKEN 0xFFFDu /* what broken UTF-8 is read as */
#define M2SE_UNICODE_DECOMPOSED_MAX 4
#define M2SE_UNICODE_LOWER_MAX 2

enum m2se_unicode_class {
  M2SE_UNICODE_CONTROL = 1,     /* Cc, Cf, Co */
  M2SE_UNICODE_MARK = 2,        /* Mn: accents and such */
  M2SE_UNICODE_PUNCTUATION = 4, /* P, and ASCII's symbols */
  M2SE_UNICODE_LETTER = 8,      /* L */
  M2SE_UNICODE_NUMBER = 16,     /* N */
  M2SE_UNICODE_SPACE = 32,      /* White_Space */
};

/* The character at the start of text[0..size), size > 0, and *length, the bytes it takes. Broken UTF-8 is
 * M2SE_UNICODE_BROKEN, one for each longest start of a character (as the Unicode standard recommends and
 * Python's errors="replace" does). */
uint32_t m2se_unicode_decode(const char *text, size_t size, size_t *length);
/* UTF-8 of a character; returns its bytes, 1..4. */
size_t m2se_unicode_encode(uint32_t character, char bytes[4]);

/* The classes that it belongs to, M2SE_UNICODE_… together. */
uint32_t m2se_unicode_classes(uint32_t character);
/* What the reference sets apart as a Chinese character, its slip in the block of extension E included. */
bool m2se_unicode_is_chinese(uint32_t character);
/* Lower case without regard to what stands around; returns how many characters, 1 or 2. */
size_t m2se_unicode_lower(uint32_t character, uint32_t lower[M2SE_UNICODE_LOWER_MAX]);

/* Full canonical decomposition; returns how many characters, 1..4. */
size_t m2se_unicode_decompose(uint32_t character, uint32_t decomposed[M2SE_UNICODE_DECOMPOSED_MAX]);
/* Puts decomposed characters into canonical order, in linear time. spare: room for as many. */
void m2se_unicode_order(uint32_t *characters, size_t count, uint32_t *spare);
/* Canonical composition of decomposed characters in order, in place; returns how many are left. */
size_t m2se_unicode_compose(uint32_t *characters, size_t count);

#endif
