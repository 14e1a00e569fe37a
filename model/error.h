/* Errors of model/ (network, kernels' users, files): one list of codes, and the text that says what went
 * wrong.
 *
 * A function that can fail returns 0 or a negative code from this list and, where it takes a `struct
 * m2se_error *`, describes the failure there: what (file, tensor, field), where, and which rule was broken,
 * in one line. Bugs of the caller are asserts instead. Any thread; the caller owns the struct.
 */
#ifndef M2SE_ERROR_H
#define M2SE_ERROR_H

#include <stdarg.h>

/* X(code, name, text): one row an error. Codes are never renumbered: they reach logs and exit statuses. */
#define M2SE_ERRORS(X)                                                                                       \
  X(-1, M2SE_ENOMEM, "out of memory")                                                                        \
  X(-2, M2SE_EINVAL, "an argument or setting outside its range")                                             \
  X(-3, M2SE_EIO, "the operating system refused: open, read, write, sync")                                   \
  X(-4, M2SE_EFORMAT, "data that breaks the rules of its format")                                            \
  X(-5, M2SE_EMISSING, "something that is needed is not there")                                              \
  X(-6, M2SE_ETYPE, "a value of another type than asked for")                                                \
  X(-7, M2SE_ESHAPE, "a tensor of another shape than asked for")                                             \
  X(-8, M2SE_ERANGE, "a number outside its range")                                                           \
  X(-9, M2SE_ELIMIT, "larger than a stated limit")                                                           \
  X(-10, M2SE_ENUMERIC, "a number that is not finite")                                                       \
  X(-11, M2SE_EDROPPED, "given up before it was done, on purpose")

enum m2se_error_code {
#define M2SE_ERROR_ENUM(code, name, text) name = (code),
  M2SE_ERRORS(M2SE_ERROR_ENUM)
#undef M2SE_ERROR_ENUM
};

struct m2se_error {
  int code; /* 0 or one of the list */
  char text[512];
};

/* Writes code and text and returns code, so that `return m2se_error_set(...)` reads as one step. The text is
 * always one line of valid UTF-8: control characters and broken bytes (from file names, foreign files) become
 * '?', and what does not fit is cut at a character. error may be NULL: the code is returned all the same.
 * code must be in the list.
 * A macro around the function that writes, so that the compiler and static analysis see which code comes
 * back: a caller that tests for it is known not to go on. `code` is evaluated twice. */
#define m2se_error_set(error, code, ...)                                                                     \
  (m2se_error_write((error), (code), __VA_ARGS__), m2se_error_returned(code))
void m2se_error_write(struct m2se_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static inline int m2se_error_returned(int code) {
  return code;
}

/* Puts "<prefix>: " before the text, for a caller that knows the context (a file, a tensor) which the failing
 * function did not. Returns error->code, or with error NULL the code given. */
int m2se_error_prefix(struct m2se_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "M2SE_EFORMAT" and the text of the list; for a number that is not in it, "unknown" and "unknown error".
 * Static. */
const char *m2se_error_name(int code);
const char *m2se_error_text(int code);

#endif
