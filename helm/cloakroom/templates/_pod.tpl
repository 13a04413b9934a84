{{/* Parts that the pods of the Deployment, of the config check and of `helm test` have in common. */}}

{{- define "cloakroom.podLabels" -}}
{{- if eq (toString (include "cloakroom.config" . | fromYaml).provider.clientAuth.method) "workload_identity" }}
azure.workload.identity/use: "true"
{{- end }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Environment, each name once: what extraEnv has wins, but for CLOAKROOM_CONFIG. */}}
{{- define "cloakroom.env" -}}
{{- $names := list -}}
{{- range .Values.extraEnv }}{{ $names = append $names .name }}{{ end -}}
- name: CLOAKROOM_CONFIG
  value: /etc/cloakroom/cloakroom.yaml
{{- $limit := dig "limits" "memory" "" (default dict .Values.resources) }}
{{- if and .Values.heapPercent $limit (not (has "NODE_OPTIONS" $names)) }}
# Without it Node.js sizes its heap by itself, and learns of the limit by being killed.
- name: NODE_OPTIONS
  value: --max-old-space-size={{ div (mul (include "cloakroom.mebibytes" $limit | int64) (int64 .Values.heapPercent)) 100 }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "cloakroom.volumeMounts" -}}
# Directories, not subPath: a file mounted by subPath never sees an update.
- { name: config, mountPath: /etc/cloakroom, readOnly: true }
{{- if include "cloakroom.hasSecrets" . }}
- { name: secrets, mountPath: {{ .Values.secrets.mountPath }}, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "cloakroom.hasSecrets" -}}
{{- if or .Values.secrets.secretProviderClass .Values.secrets.additional (include "cloakroom.secretItems" . | fromYaml) }}yes{{ end }}
{{- end }}

{{- define "cloakroom.volumes" -}}
- name: config
  configMap:
    name: {{ include "cloakroom.configMapName" . }}
{{- if .Values.secrets.secretProviderClass }}
- name: secrets
  csi:
    driver: secrets-store.csi.k8s.io
    readOnly: true
    volumeAttributes: { secretProviderClass: {{ .Values.secrets.secretProviderClass | quote }} }
{{- else if include "cloakroom.hasSecrets" . }}
- name: secrets
  projected:
    # 0440: readable through fsGroup, by nobody else.
    defaultMode: 288
    sources:
      {{- with include "cloakroom.secretItems" . | fromYaml }}
      - secret:
          name: {{ $.Values.secrets.existingSecret }}
          items:
            {{- range $file, $key := . }}
            - { key: {{ $key | quote }}, path: {{ $file | quote }} }
            {{- end }}
      {{- end }}
      {{- range .Values.secrets.additional }}
      - secret:
          name: {{ .name }}
          items:
            {{- range $file, $key := .files }}
            - { key: {{ $key | quote }}, path: {{ $file | quote }} }
            {{- end }}
      {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Where a pod may run and how it finds names. */}}
{{- define "cloakroom.placement" -}}
{{- range $key := list "hostAliases" "dnsPolicy" "dnsConfig" "priorityClassName" "runtimeClassName" "nodeSelector" "tolerations" "affinity" }}
{{- with get $.Values $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{/* Containers of the values, restricted like ours unless they say otherwise. */}}
{{- define "cloakroom.containers" -}}
{{- $containers := list -}}
{{- range .containers -}}
{{- $containers = append $containers (merge (deepCopy .) (dict "securityContext" (deepCopy $.root.Values.securityContext))) -}}
{{- end -}}
{{- toYaml $containers }}
{{- end }}
