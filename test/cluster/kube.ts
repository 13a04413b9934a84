import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'

/** Kubernetes objects and answers of the API are other people's types. */
// biome-ignore lint/suspicious/noExplicitAny: readers name what they read.
export type Manifest = any

/** How a program ended. */
export type Ended = { readonly code: number | null; readonly stdout: string; readonly stderr: string }

/** Runs a program to its end; `input` is its standard input. */
export function run(command: string, args: readonly string[], input = ''): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk) => {
      stdout += chunk
    })
    child.stderr.on('data', (chunk) => {
      stderr += chunk
    })
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, stdout, stderr }))
    child.stdin.end(input)
  })
}

/** The same; throws, with what it printed, unless it succeeds. */
export async function must(command: string, args: readonly string[], input = ''): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, input)
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}:\n${stderr}${stdout}`)
  return stdout
}

/** kubectl in one namespace. */
export const kubectl = (namespace: string, ...args: string[]) => must('kubectl', ['-n', namespace, ...args])

/** Objects of a namespace, as JSON has them. */
export async function list(namespace: string, kind: string, selector = ''): Promise<Manifest[]> {
  const text = await kubectl(namespace, 'get', kind, '-l', selector, '-o', 'json')
  return JSON.parse(text).items
}

/** Makes a namespace that enforces the restricted Pod Security Standard, and warns of templates of pods that do not meet it. */
export async function createNamespace(name: string): Promise<void> {
  const levels = ['enforce', 'warn'].map((mode) => [`pod-security.kubernetes.io/${mode}`, 'restricted'])
  const metadata = { name, labels: Object.fromEntries(levels) }
  await apply('default', { apiVersion: 'v1', kind: 'Namespace', metadata })
}

/** Makes objects, or changes them to this. */
export async function apply(namespace: string, ...objects: Manifest[]): Promise<void> {
  const items = { apiVersion: 'v1', kind: 'List', items: objects }
  await must('kubectl', ['-n', namespace, 'apply', '--server-side', '-f', '-'], JSON.stringify(items))
}

const LOOK_AGAIN_MS = 200

/** Waits until `look` gives something; throws after `seconds`, with what was waited for. */
export async function until<T>(
  what: string,
  look: () => Promise<T | false | undefined>,
  seconds = 60,
): Promise<T> {
  const end = performance.now() + seconds * 1000
  for (;;) {
    const seen = await look()
    if (seen) return seen
    if (performance.now() > end) throw new Error(`waited ${seconds} s in vain: ${what}`)
    await delay(LOOK_AGAIN_MS)
  }
}

/** Whether a pod is ready, by its conditions. */
export function isReady({ status, metadata }: Manifest): boolean {
  const conditions: Manifest[] = status.conditions ?? []
  return (
    !metadata.deletionTimestamp &&
    conditions.some(({ type, status: is }) => type === 'Ready' && is === 'True')
  )
}

/** Ends a container's process with SIGKILL, as the node's out-of-memory killer does. */
export async function killContainer(pod: Manifest): Promise<void> {
  const id = String(pod.status.containerStatuses[0].containerID).replace('containerd://', '')
  await must('ctr', ['tasks', 'kill', '--signal', 'SIGKILL', id])
}
