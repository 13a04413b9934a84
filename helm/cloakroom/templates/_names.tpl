{{- define "cloakroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52, so that the longest suffix (-0123456789) still fits into the 63 characters of a DNS label. */}}
{{- define "cloakroom.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "cloakroom.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "cloakroom.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The only place that knows the release's namespace. */}}
{{- define "cloakroom.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "cloakroom.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cloakroom.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What all pods of the release share, also those that no Service may find: for the NetworkPolicy. */}}
{{- define "cloakroom.networkLabels" -}}
app.kubernetes.io/part-of: {{ include "cloakroom.fullname" . }}
{{- end }}

{{/* Labels of an object, as a map without repeats: the chart's own win over commonLabels. */}}
{{- define "cloakroom.labels" -}}
{{- $own := include "cloakroom.selectorLabels" . | fromYaml -}}
{{- $chart := printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $more := dict "helm.sh/chart" $chart "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service -}}
{{- toYaml (merge $own $more (omit (default dict .Values.commonLabels) "app.kubernetes.io/component")) }}
{{- end }}

{{/* Labels of a pod that is not one of the Deployment's, so that no Service and no budget counts it. */}}
{{- define "cloakroom.hookLabels" -}}
{{- $own := include "cloakroom.networkLabels" .root | fromYaml -}}
{{- $labels := include "cloakroom.labels" .root | fromYaml -}}
{{- toYaml (merge (dict "app.kubernetes.io/name" (printf "%s-%s" (include "cloakroom.name" .root | trunc 56) .name)) $own $labels) }}
{{- end }}

{{- define "cloakroom.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "cloakroom.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "cloakroom.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag | toString) }}
{{- end }}
{{- end }}

{{/* The port of a "host:port" address. */}}
{{- define "cloakroom.port" -}}
{{- regexFind "[0-9]+$" (toString .) }}
{{- end }}

{{/* The host that browsers know. */}}
{{- define "cloakroom.host" -}}
{{- (urlParse .Values.config.publicUrl).hostname }}
{{- end }}

{{/* Fewest and most pods, whoever scales. `replicas: null` is somebody else's number: several. */}}
{{- define "cloakroom.minReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.minReplicas }}
{{- else if .Values.keda.enabled }}{{ .Values.keda.minReplicaCount }}
{{- else if kindIs "invalid" .Values.replicas }}2
{{- else }}{{ .Values.replicas }}{{ end }}
{{- end }}
{{- define "cloakroom.maxReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}
{{- else if .Values.keda.enabled }}{{ .Values.keda.maxReplicaCount }}
{{- else if kindIs "invalid" .Values.replicas }}2
{{- else }}{{ .Values.replicas }}{{ end }}
{{- end }}

{{/* A quantity of memory ("512Mi", "1.5G", 536870912) in MiB, rounded down. */}}
{{- define "cloakroom.mebibytes" -}}
{{- $unit := regexFind "[A-Za-z]*$" (toString .) -}}
{{- $number := trimSuffix $unit (toString .) | float64 -}}
{{- $factor := get (dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) $unit -}}
{{- divf (mulf $number (default 0 $factor)) 1048576 | floor | int64 }}
{{- end }}

{{/* A duration of the config ("5s", "500ms", "1m") in whole seconds, rounded up. */}}
{{- define "cloakroom.seconds" -}}
{{- $unit := regexFind "(ms|s|m|h)$" (toString .) -}}
{{- $number := trimSuffix $unit (toString .) | float64 -}}
{{- mulf $number (get (dict "ms" 0.001 "s" 1 "m" 60 "h" 3600) (default "s" $unit)) | ceil | int64 }}
{{- end }}
