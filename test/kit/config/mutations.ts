import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { changed, problemsOf } from './base-config.ts'

/** A part of the valid config, what replaces it, the field that must be named and what must be said about it. */
export type Mutation = readonly [from: string, to: string, path: string, says: RegExp]

/** One test for each mutation of the valid config. */
export function describeMutations(subject: string, mutations: readonly Mutation[]): void {
  describe(`a valid config with one change in ${subject}`, () => {
    for (const [from, to, path, says] of mutations) {
      test(`${inOneLine(to)} instead of ${inOneLine(from)} names ${path}`, () => {
        const problems = problemsOf(changed(from, to))
        const named = problems.find((problem) => problem.path === path)
        assert.ok(named, `reported instead: ${JSON.stringify(problems)}`)
        assert.match(named.message, says)
        assert.ok(!/undefined|\[object/.test(named.message) && !named.message.includes('\0'), named.message)
      })
    }
  })
}

function inOneLine(text: string): string {
  return `"${text.trim().replaceAll(/\s*\n\s*/g, ', ')}"`
}
