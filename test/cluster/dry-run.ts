import { basename } from 'node:path'
import { ciValues, renderChart } from '../kit/chart.ts'
import { createNamespace, type Manifest, must, run } from './kube.ts'

/**
 * Sends what the chart renders, for every values file of its ci folder, to the API server, which judges it as at a real
 * installation and stores nothing (`--dry-run=server`): schema, defaults, rules of CustomResourceDefinitions, and what Pod
 * Security has to say of the pods. Gives what is wrong.
 */
export async function dryRun(): Promise<string[]> {
  const folder = process.env.CLUSTER_CRDS
  if (!folder) throw new Error('CLUSTER_CRDS: where are the CustomResourceDefinitions?')
  await must('kubectl', ['apply', '--server-side', '-f', folder])
  await must('kubectl', ['wait', '--for=condition=Established', 'crd', '--all', '--timeout=60s'])
  const problems: string[] = []
  const kinds: Record<string, number> = {}
  for (const file of ciValues) {
    const { objects, error } = renderChart('-n', NAMESPACE, '-f', file, '--set', 'apiCheck=false')
    const said = error || (await judge(objects, kinds))
    if (said) problems.push(`${basename(file)}: ${said}`)
  }
  const counts = Object.entries(kinds).map(([kind, count]) => `${count} ${kind}`)
  const verdict = problems.length === 0 ? 'the API server takes all' : problems.join('\n')
  console.log(`${ciValues.length} values files of the chart, ${counts.join(', ')}: ${verdict}`)
  return problems
}

const NAMESPACE = 'dry-run'
const PRIORITY_CLASS = { apiVersion: 'scheduling.k8s.io/v1', kind: 'PriorityClass', value: 1000 }
const made = new Set<string>()

/** What the API server has against these objects; '' when nothing. */
async function judge(objects: readonly Manifest[], kinds: Record<string, number>): Promise<string> {
  for (const object of objects) {
    object.metadata.namespace ??= NAMESPACE
    kinds[object.kind] = (kinds[object.kind] ?? 0) + 1
    if (!made.has(object.metadata.namespace)) await createNamespace(object.metadata.namespace)
    made.add(object.metadata.namespace)
  }
  // A pod is refused whose account or priority is not there, and a dry run makes none.
  const needed = objects.flatMap((object) => {
    if (object.kind === 'ServiceAccount') return [object]
    const name = object.kind === 'Pod' && object.spec.priorityClassName
    return name ? [{ ...PRIORITY_CLASS, metadata: { name } }] : []
  })
  if (needed.length > 0) await send(needed, '--dry-run=none')
  const { code, stderr } = await send(objects, '--dry-run=server')
  return code !== 0 || /would violate/.test(stderr) ? stderr.trim() : ''
}

function send(items: readonly Manifest[], how: string) {
  const everything = { apiVersion: 'v1', kind: 'List', items }
  return run('kubectl', ['apply', how, '-f', '-'], JSON.stringify(everything))
}
