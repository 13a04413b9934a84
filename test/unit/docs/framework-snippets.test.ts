import assert from 'node:assert/strict'
import { test } from 'node:test'
import { declarationsOf } from '../../../src/cli/config/types.ts'
import { BASE, load } from '../../kit/config/base-config.ts'
import { compile } from '../../kit/house/compile.ts'
import { blocksOf, fileText } from '../../kit/house/readme-parts.ts'

/** What the snippets use of each framework, with the types that it has there. */
const FRAMEWORKS = `
declare module 'react' {
  export function useSyncExternalStore<T>(
    subscribe: (changed: () => void) => () => void, get: () => T, getOfServer?: () => T): T
}
declare module 'react/jsx-runtime' {
  export namespace JSX { interface IntrinsicElements { button: { onClick?: () => void; children?: unknown } } }
  export const jsx: unknown, jsxs: unknown
}
declare module 'vue' {
  export function shallowRef<T>(value: T): { value: T }
  export function onScopeDispose(dispose: () => void): void
}
declare module '@angular/core' {
  export function Injectable(options: { providedIn: 'root' }): (type: new () => object) => void
  export abstract class DestroyRef { abstract onDestroy(callback: () => void): () => void }
  export function inject<T>(token: abstract new () => T): T
  type Signal<T> = (() => T) & { set(value: T): void; asReadonly(): () => T }
  export function signal<T>(value: T): Signal<T>
}
declare module 'svelte/reactivity' {
  export function createSubscriber(start: (update: () => void) => (() => void) | void): () => void
}
declare module '@tanstack/react-query' {
  type Retry = (count: number, error: Error) => boolean
  export class QueryClient {
    constructor(options: { defaultOptions: { queries: { retry: Retry } } })
    clear(): void
    refetchQueries(filter: { predicate: (query: { state: { status: 'error' | 'pending' | 'success' } }) => boolean }): Promise<void>
  }
  export function queryOptions<T>(options: {
    queryKey: readonly unknown[]; refetchInterval: number; queryFn: (context: { signal: AbortSignal }) => Promise<T> }): unknown
}
`

test('the snippets of config/README.md for each framework compile with the helper and the printed declarations', async () => {
  const section = fileText('config/README.md').split('### In a framework\n')[1]?.split('\n## ')[0] ?? ''
  const blocks = [...blocksOf(section, 'ts'), ...blocksOf(section, 'tsx')]
  const named = blocks.map((code) => [/^\/\/ ([\w.]+)/.exec(code)?.[1] ?? 'unnamed.ts', code] as const)
  const words = ['React', 'Vue', 'Angular', 'Svelte', 'TanStack Query']
  for (const word of words)
    assert.ok(
      named.some(([, code]) => code.split('\n', 1)[0]?.includes(word)),
      word,
    )
  const files = {
    ...Object.fromEntries(named),
    'cloakroom-types.d.ts': declarationsOf(load(BASE).config),
    'frameworks.d.ts': FRAMEWORKS,
  }
  assert.equal(Object.keys(files).length, words.length + 3)
  const errors = await compile(files, {
    ...{ module: 'esnext', moduleResolution: 'bundler', jsx: 'react-jsx', experimentalDecorators: true },
    paths: { 'cloakroom-bff/*': ['../../../src/client/*.ts'] },
  })
  assert.equal(errors, '')
})
