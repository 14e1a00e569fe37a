/* Strings of bytes to numbers, walked byte by byte: vocabularies and the tokens that are looked for in a
 * text.
 *
 * Nodes are numbered; an edge is one entry of an open-addressed hash table. Built by one thread, then read by
 * any number. Zeroed is empty.
 */
#ifndef M2SE_TEXT_TRIE_H
#define M2SE_TEXT_TRIE_H

#include <stddef.h>
#include <stdint.h>

#define M2SE_TRIE_ROOT 0u
#define M2SE_TRIE_NONE UINT32_MAX /* no such node, or no string ends here */

struct m2se_trie_edge {
  uint32_t key;  /* node * 256 + byte + 1; 0: free */
  uint32_t node; /* where it leads */
};
struct m2se_trie {
  struct m2se_trie_edge *edges; /* edges_size, a power of two */
  uint32_t *values;             /* of nodes, values_size */
  uint32_t edges_size, values_size, nodes;
};

/* value: not M2SE_TRIE_NONE; a string added again gets the new one. 0, M2SE_ENOMEM, or M2SE_ELIMIT beyond
 * 2^24 nodes. */
int m2se_trie_add(struct m2se_trie *trie, const char *string, size_t size, uint32_t value);
void m2se_trie_free(struct m2se_trie *trie); /* empty again */

/* The node that a byte leads to, or M2SE_TRIE_NONE. */
uint32_t m2se_trie_step(const struct m2se_trie *trie, uint32_t node, uint8_t byte);
/* The number of the string that ends at the node, or M2SE_TRIE_NONE. */
uint32_t m2se_trie_value(const struct m2se_trie *trie, uint32_t node);
/* The number of a whole string, or M2SE_TRIE_NONE. */
uint32_t m2se_trie_find(const struct m2se_trie *trie, const char *string, size_t size);

#endif
